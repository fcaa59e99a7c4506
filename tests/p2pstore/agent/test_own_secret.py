"""A user's own secret is made once, whole, and for nobody else to read."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from p2pstore.agent import own_secret as module
from p2pstore.agent.own_secret import own_secret
from p2pstore.errors import StorageError
from p2pstore.settings.secrets import doubts_of_file, doubts_of_secret


def test_it_is_made_once(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    file = own_secret(environ=environ)
    assert file == tmp_path / "state" / "mooncake" / "secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    secret = file.read_bytes()
    assert doubts_of_secret(secret.strip()) == doubts_of_file(file) == []
    assert own_secret(tmp_path, environ).read_bytes() == secret
    assert [path.name for path in file.parent.iterdir()] == ["secret"]


def test_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file = own_secret(environ={"HOME": str(tmp_path)})
    finally:
        os.umask(before)
    assert file == tmp_path / ".local" / "state" / "mooncake" / "secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_many_that_start_together_agree(tmp_path: Path) -> None:
    found: list[bytes] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        found.append(own_secret(environ={"HOME": str(tmp_path)}).read_bytes())

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8


def test_an_empty_one_that_a_full_disk_left_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mooncake" / "secret"
    file.parent.mkdir()
    file.touch()
    assert own_secret(environ={"XDG_STATE_HOME": str(tmp_path)}).read_bytes()


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(_a: object, _b: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    file = own_secret(environ={"HOME": str(tmp_path)})
    assert file.read_bytes()
    assert [path.name for path in file.parent.iterdir()] == ["secret"]


def test_where_there_is_no_home_directory_it_lies_in_the_agents(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environ = {"HOME": str(tmp_path / "file" / "x")}
    assert own_secret(tmp_path / "home", environ) == tmp_path / "home" / "secret"
    with pytest.raises(StorageError, match="Not a directory"):
        own_secret(None, environ)


def test_anothers_directory_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with sudo, which keeps HOME: the user could not read what root leaves there."""
    (tmp_path / "theirs" / "mooncake").mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(tmp_path / "theirs" / "mooncake", 12345, 12345)
        assert own_secret(tmp_path, {"XDG_STATE_HOME": str(tmp_path / "theirs")}) == tmp_path / "secret"
        return
    monkeypatch.setattr(module.os, "geteuid", lambda: -1)
    with pytest.raises(StorageError, match="belongs to another user"):
        own_secret(None, {"XDG_STATE_HOME": str(tmp_path / "theirs")})
