"""What keeps an agent from writing its home is told before it is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pstore.agent.home import Home
from p2pstore.doctor import homes
from p2pstore.doctor.homes import ETCD_BYTES, LITTLE_BYTES, check_home


@pytest.mark.parametrize(
    ("free", "etcd", "verdict"),
    [
        (ETCD_BYTES, True, "ok"),
        (ETCD_BYTES - 1, True, "warning"),
        (ETCD_BYTES - 1, False, "ok"),
        (LITTLE_BYTES, False, "ok"),
        (LITTLE_BYTES - 1, False, "failed"),
        (0, True, "failed"),
    ],
)
def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, etcd: bool, verdict: str) -> None:
    """Also of one that is not made yet."""
    monkeypatch.setattr(homes, "free_bytes", lambda _: free)
    (check,) = check_home(Home.resolve(tmp_path / "not" / "yet"), etcd=etcd, writes=True)
    assert check.verdict == verdict
    assert (check.code == 8) == (verdict == "failed")
    assert ("MOONCAKE_HOME" in check.advice) == (verdict != "ok")


def test_a_file_system_that_does_not_tell_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "free_bytes", lambda _: None)
    assert list(check_home(Home.resolve(tmp_path), etcd=True, writes=True)) == []


def test_one_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(_: object) -> int:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(homes, "free_bytes", stale)
    (check,) = check_home(Home.resolve(tmp_path), etcd=True, writes=True)
    assert (check.verdict, check.detail) == ("failed", f"{tmp_path}: Stale file handle")


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (check,) = check_home(Home.resolve(tmp_path / "file" / "home"), etcd=True, writes=True)
    assert (check.verdict, check.detail) == ("failed", f"{tmp_path / 'file'} is no directory")


def test_what_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As access(2) says, which knows of read-only mounts, too; of another user's agent it says nothing."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    (check,) = check_home(Home.resolve(tmp_path), etcd=False, writes=True)
    assert (check.verdict, check.detail) == ("failed", f"{tmp_path} cannot be written to")
    assert check.advice == "mend that, or name another with --home DIR or MOONCAKE_HOME"
    (check,) = check_home(Home.resolve(tmp_path), etcd=False, writes=False)
    assert check.verdict != "failed"
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    (check,) = check_home(Home.resolve(tmp_path), etcd=False, writes=True)
    assert "belongs to user " in check.detail
    assert check.advice == "name another with --home DIR or MOONCAKE_HOME", "it is not this user's to mend"
