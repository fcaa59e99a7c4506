"""What programs read lies under its own name, beside what others have put there."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from p2pstore.errors import Interrupted, StorageError
from p2pstore.hub.kept import MAX_PLACES, place_for
from tests.p2pstore.samples import MIB, content, manifest_of, record_of, write_tree

FILES = {"a": content(2 * MIB + 1), "b/c": content(7, 2)}
MANIFEST = manifest_of(FILES, MIB)
RECORD = record_of("o/é/m", MANIFEST)


def place(directory: Path | None, *, cancelled: bool = False) -> tuple[Path, bool]:
    event = threading.Event()
    if cancelled:
        event.set()
    found, spans = place_for(directory, RECORD, MANIFEST, event)
    return found, spans is not None


def test_a_place_in_a_directory_that_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    kept = tmp_path / "x" / "kept"
    found, there = place(kept)
    assert (found.parent, there) == (kept, False)
    assert not found.exists()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


def test_what_lies_there_already_is_taken_and_what_others_put_there_is_left(tmp_path: Path) -> None:
    first, _ = place(tmp_path)
    first.write_bytes(b"another's")
    second, there = place(tmp_path)
    assert (second != first, there) == (True, False)
    write_tree(second, FILES)
    assert place(tmp_path) == (second, True)
    assert first.read_bytes() == b"another's"
    with pytest.raises(Interrupted):
        place(tmp_path, cancelled=True)


def test_no_place(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no directory to keep"):
        place(None)
    for _ in range(MAX_PLACES):
        found, _there = place(tmp_path)
        found.write_bytes(b"another's")
    with pytest.raises(StorageError, match="not what this node put there"):
        place(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="not a directory"):
        place(tmp_path / "file" / "kept")
