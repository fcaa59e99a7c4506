"""Secrets that are none are called so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pstore.settings.secrets import MIN_SECRET_BYTES, doubts_of_file, doubts_of_secret


def test_a_secret_must_be_long() -> None:
    assert doubts_of_secret(b"x" * MIN_SECRET_BYTES) == []
    (doubt,) = doubts_of_secret(b"hunter2")
    assert doubt.startswith("the cluster secret has 7 bytes, and fewer than 16 can be guessed")
    assert "hunter2" not in doubt


@pytest.mark.parametrize(
    ("mode", "doubt"),
    [
        (0o600, ""),
        (0o640, ""),  # a group that shares an agent
        (0o644, "everybody on this host can read"),
        (0o604, "everybody on this host can read"),
        (0o602, "others can change"),
    ],
)
def test_nobody_else_must_reach_its_file(tmp_path: Path, mode: int, doubt: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"x")
    file.chmod(mode)
    found = doubts_of_file(file)
    assert [text.startswith(doubt) for text in found] == ([True] if doubt else [])


def test_a_file_that_another_group_can_write(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file to another group")
    file = tmp_path / "secret"
    file.write_bytes(b"x")
    os.chown(file, 0, 12345)
    file.chmod(0o660)
    (doubt,) = doubts_of_file(file)
    assert doubt == f"others can change the cluster secret in {file}; run 'chmod go-w {file}'"


def test_a_file_that_is_not_there_is_for_its_reader_to_tell(tmp_path: Path) -> None:
    assert doubts_of_file(tmp_path / "missing") == []
