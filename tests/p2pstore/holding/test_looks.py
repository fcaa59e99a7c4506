"""A look tells what changed from what was only touched, and tries to read where reading failed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from p2pstore.holding import looks as module
from p2pstore.holding.catalog import Holding
from p2pstore.holding.looks import Suspects, look_at, look_at_each
from tests.p2pstore.holding.held import FILES, scanned
from tests.p2pstore.samples import write_tree

WAIT = 60.0


def holdings(place: Path, *names: str) -> list[Holding]:
    for name in names:
        write_tree(place / name, FILES)
    return [scanned(place / name, name)[0] for name in names]


def test_each_that_changed_or_was_touched_is_told_by_its_number(tmp_path: Path) -> None:
    there = holdings(tmp_path, "same", "changed", "gone", "touched")
    (tmp_path / "changed/b/c").write_bytes(b"changed")
    (tmp_path / "gone/a").unlink()
    os.chmod(tmp_path / "touched/d", 0o600)
    faults, touched = look_at_each(there)
    assert set(faults) == {1, 2}
    assert faults[1].startswith(f"{tmp_path}/changed/b/c: ")
    assert faults[2].startswith(f"{tmp_path}/gone/a: ")
    assert touched == [3]
    assert look_at(there[0]) == ("", False)


def test_what_could_not_be_read_is_tried_there_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = holdings(tmp_path, "one", "other")
    asked = []

    def fault(path: str, offset: int) -> str:
        asked.append((path, offset))
        return "it cannot be read"

    monkeypatch.setattr(module, "reading_fault", fault)
    path = str(tmp_path / "one/b/c")
    assert look_at_each([one, other], {path: 7}) == ({0: f"{path}: it cannot be read"}, [])
    assert asked == [(path, 7)]


async def test_a_suspect_ends_the_wait_for_the_next_look(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    suspects = Suspects()
    await asyncio.to_thread(suspects.unreadable, "/a", 5, "Input/output error")
    await asyncio.wait_for(suspects.wait(1000), WAIT)
    assert caplog.messages == ["/a: Input/output error"]
    assert suspects.take_unread() == {"/a": 5}
    assert suspects.take_unread() == {}
    await suspects.wait(0.01)


async def test_so_many_unread_paths_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNREAD", 2)
    suspects = Suspects()
    for name in "abc":
        suspects.unreadable(name, 0, "Input/output error")
    assert suspects.take_unread() == {"a": 0, "b": 0}
