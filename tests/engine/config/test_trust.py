"""Whose files are obeyed."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from engine.config import trust
from engine.config.trust import others_can_write, user_name, why_not_obeyed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "config.toml"
    made.touch()
    made.chmod(0o644)
    return made


def test_our_own_file(file: Path) -> None:
    assert why_not_obeyed(file.stat()) == ""


def test_roots_file() -> None:
    assert why_not_obeyed(Path("/etc/passwd").stat()) == ""


def test_anothers_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = file.stat()
    monkeypatch.setattr(trust, "ROOT", -1)
    monkeypatch.setattr(os, "geteuid", lambda: found.st_uid + 1)
    assert why_not_obeyed(found) == f"it belongs to {user_name(found.st_uid)}"


@pytest.mark.parametrize(("mode", "others"), [(0o644, False), (0o600, False), (0o646, True), (0o602, True)])
def test_a_file_that_all_can_write(file: Path, mode: int, others: bool) -> None:
    file.chmod(mode)
    assert others_can_write(file.stat()) is others
    assert why_not_obeyed(file.stat()) == ("others can write it" if others else "")


@pytest.mark.parametrize(
    ("name", "members", "others"),
    [("ann", [], False), ("ann", ["ann"], False), ("ann", ["ann", "bob"], True), ("users", [], True)],
)
def test_a_group_of_ones_own_is_no_other(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, members: list[str], others: bool
) -> None:
    file.chmod(0o664)
    found = os.stat_result((0o100664, 1, 1, 1, 1000, 1000, 0, 0, 0, 0))
    owner = pwd.struct_passwd(("ann", "x", 1000, 1000, "", "/", "/bin/sh"))
    monkeypatch.setattr("pwd.getpwuid", lambda _: owner)
    monkeypatch.setattr("grp.getgrgid", lambda _: type("Group", (), {"gr_name": name, "gr_mem": members}))
    assert others_can_write(found) is others


def test_a_group_and_a_user_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.stat_result((0o100664, 1, 1, 1, 4_000_000, 4_000_000, 0, 0, 0, 0))
    assert others_can_write(found)
    assert user_name(4_000_000) == "user 4000000"
