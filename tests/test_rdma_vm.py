"""``scripts/rdma_vm.py`` where it cannot run, and how it chooses the guest's kernel: no guest is started here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import rdma_vm

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("depends", "kernel", "image"),
    [
        (
            "linux-image-6.12-amd64\n  Depends: linux-image-6.12.43+deb12-amd64\n",
            "linux-image-6.12-amd64",
            "linux-image-6.12.43+deb12-amd64",
        ),
        ("linux-image-amd64\n  Depends: linux-image-6.1.0-40-amd64\n", "linux-image-amd64", None),
        ("linux-image-amd64\n  Depends: linux-image-7.0.1-amd64\n", "linux-image-amd64", "linux-image-7.0.1-amd64"),
        ("linux-image-amd64\n", "linux-image-amd64", None),
        ("", "linux-image-6.12-amd64", None),
    ],
)
def test_a_kernel_is_taken_if_it_is_new_enough(depends: str, kernel: str, image: str | None) -> None:
    assert rdma_vm.image_of(depends, kernel) == image


def run_with_apt(tmp_path: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """rdma_vm.py with an empty cache and these shell scripts in front of the system's programs."""
    if not shutil.which("busybox"):
        programs["busybox"] = "exit 0"
    programs |= {"qemu-system-x86_64": "echo qemu was started >&2; exit 1"}
    (tmp_path / "bin").mkdir(exist_ok=True)
    for name, body in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RDMA_VM")}
    env |= {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "XDG_CACHE_HOME": f"{tmp_path}/cache"}
    command = [sys.executable, "scripts/rdma_vm.py", "--", "true"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


KNOWN = 'echo "  Depends: linux-image-6.12.9-amd64"'


def test_a_failed_download_says_what_apt_said_and_is_tried_again(tmp_path: Path) -> None:
    for complaint in ("E: 404  Not Found", "E: Could not resolve host"):
        ended = run_with_apt(tmp_path, **{"apt-cache": KNOWN, "apt-get": f"echo '{complaint}' >&2; exit 100"})
        assert ended.returncode == rdma_vm.CANNOT_RUN
        assert complaint in ended.stderr
        assert "Traceback" not in ended.stderr
        assert list((tmp_path / "cache" / "rdma-vm").iterdir()) == []


def test_a_machine_whose_apt_knows_no_such_kernel_is_told_so(tmp_path: Path) -> None:
    ended = run_with_apt(tmp_path, **{"apt-cache": "echo 'E: No packages found' >&2; exit 100"})
    assert ended.returncode == rdma_vm.CANNOT_RUN
    assert "apt-get update" in ended.stderr


def test_other_processors_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(sys, "argv", ["rdma_vm.py", "--", "true"])
    with pytest.raises(SystemExit) as ended:
        rdma_vm.main()
    assert ended.value.code == rdma_vm.CANNOT_RUN
    assert "aarch64" in capsys.readouterr().err
