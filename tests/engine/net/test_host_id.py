"""One host is one boot, one mount namespace and one network namespace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.net import host_id as module
from engine.net.host_id import host_id, view_id


def test_host_id_is_shared_by_processes_and_not_by_namespaces() -> None:
    script = "from engine.net.host_id import host_id; print(host_id())"
    same = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert same.stdout.strip() == host_id() != ""
    command = ["unshare", "--net", sys.executable, "-c", script]
    try:
        other = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if other.returncode:
        pytest.skip(f"no namespaces here: {other.stderr.strip()}")
    assert other.stdout.strip() not in ("", host_id())


def test_where_proc_does_not_tell_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOT_ID", tmp_path / "boot_id")
    assert host_id() == ""
    assert view_id() == ""


def test_a_view_is_one_mount_namespace_whatever_the_network() -> None:
    script = "from engine.net.host_id import view_id; print(view_id())"
    for namespace, is_same in (("--net", True), ("--mount", False)):
        command = ["unshare", namespace, sys.executable, "-c", script]
        try:
            other = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except FileNotFoundError:
            pytest.skip("no unshare here")
        if other.returncode:
            pytest.skip(f"no namespaces here: {other.stderr.strip()}")
        assert (other.stdout.strip() == view_id()) is is_same
