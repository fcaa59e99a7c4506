"""The journal remembers what it was told, for its own manifest, and only one get at a time writes it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.files.system import system
from p2pstore.errors import DestinationBusy, StorageError
from p2pstore.pull.journal import Journal, lock_journal
from tests.descriptors import open_below
from tests.refusing import RefusingFileSystem

MANIFEST = "m" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.part.journal"


def opened(path: Path, manifest: str = MANIFEST) -> Journal:
    return Journal(path, lock_journal(path, path.with_name("x"), create=True), manifest, "name")


def listed(path: Path, manifest: str = MANIFEST) -> list[int] | None:
    journal = opened(path, manifest)
    journal.close()
    return journal.chunks


def test_a_new_one(path: Path) -> None:
    journal = opened(path)
    assert not journal.resumed
    assert journal.chunks is None
    journal.close()
    assert listed(path) == []


def test_what_was_added_is_there_again(path: Path) -> None:
    journal = opened(path)
    journal.add(range(3, 5))
    journal.add(range(0))
    journal.add(range(1))
    journal.close()
    journal = opened(path)
    assert journal.resumed
    assert journal.chunks == [3, 4, 0]
    journal.add(range(10, 11))
    journal.close()
    assert listed(path) == [3, 4, 0, 10]


def test_notes_of_chunks_are_there_again(path: Path) -> None:
    def noting() -> Journal:
        return Journal(path, lock_journal(path, path.with_name("x"), create=True), MANIFEST, "name", note_bytes=16)

    journal = noting()
    journal.notes = {number: bytes([number]) * 16 for number in (3, 4, 7)}
    journal.add(range(3, 6))
    journal.add(range(7, 8))
    journal.close()
    with open(path, "ab") as stream:
        stream.write(b"torn")
    journal = noting()
    assert journal.chunks == [3, 4, 5, 7]
    assert [journal.notes[number] for number in (3, 4, 5, 7)] == [b"\3" * 16, b"\4" * 16, bytes(16), b"\7" * 16]
    journal.restart([4, 7], MANIFEST, "name")
    journal.close()
    journal = noting()
    assert journal.chunks == [4, 7]
    assert journal.notes == {4: b"\4" * 16, 7: b"\7" * 16}
    journal.close()


def test_chunks_that_look_like_line_ends(path: Path) -> None:
    newlines = int.from_bytes(b"\n\n\n\n", "little")
    journal = opened(path)
    journal.add(range(newlines, newlines + 2))
    journal.close()
    assert listed(path) == [newlines, newlines + 1]


@pytest.mark.parametrize("torn", [1, 2, 3])
def test_a_torn_tail_is_ignored_and_cut_off(path: Path, torn: int) -> None:
    journal = opened(path)
    journal.add(range(2))
    journal.close()
    with open(path, "ab") as stream:
        stream.write(b"\7" * torn)
    journal = opened(path)
    assert journal.chunks == [0, 1]
    journal.add(range(5, 6))
    journal.close()
    assert listed(path) == [0, 1, 5]


def test_another_manifest_begins_anew(path: Path) -> None:
    journal = opened(path)
    journal.add(range(100))
    journal.close()
    assert listed(path, "n" * 64) is None
    assert listed(path, "n" * 64) == []
    assert listed(path) is None


def test_restart(path: Path) -> None:
    journal = opened(path)
    journal.add(range(9))
    journal.close()
    journal = opened(path)
    journal.restart([7, 2], MANIFEST, "name")
    journal.add(range(4, 5))
    journal.close()
    assert listed(path) == [7, 2, 4]


HEADER = json.dumps({"format": "mooncake.journal.v1", "manifest": MANIFEST, "name": "name"}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"\xff\n",
        HEADER,
        HEADER.replace(b"v1", b"v2") + b"\n",
        b"[" * 4095 + b"\n",
        b"[" * 10_000,
        b'{"a":"' + b"x" * 9000 + b'"}\n' + HEADER + b"\n",
    ],
    ids=range(10),
)
def test_what_is_no_journal_of_ours_begins_anew(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert listed(path) is None
    assert listed(path) == []


@given(st.binary(max_size=60), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_list_of_chunks_or_a_new_journal(path: Path, data: bytes, headed: bool) -> None:
    path.write_bytes(HEADER + b"\n" + data if headed else data)
    found = listed(path)
    assert listed(path) == (found or [])
    if headed:
        assert found == [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data) // 4 * 4, 4)]


def test_a_second_locker_is_refused(path: Path) -> None:
    journal = opened(path)
    with pytest.raises(DestinationBusy) as caught:
        opened(path)
    assert caught.value.fields["path"] == path.with_name("x")
    journal.add(range(1))
    journal.close()
    assert listed(path) == [0]


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the journal's lock until its input ends."""
    code = (
        "import sys; from pathlib import Path; from p2pstore.pull.journal import Journal, lock_journal\n"
        "p = Path(sys.argv[1]); lock = lock_journal(p, p.with_name('x'), create=True)\n"
        "j = Journal(p, lock, 'm' * 64, 'name'); j.add(range(3))\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_lock_of_a_killed_process_is_gone(path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(DestinationBusy):
        opened(path)
    holder.kill()
    holder.wait(30)
    assert listed(path) == [0, 1, 2]


def test_a_journal_removed_while_another_waits_for_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second opens the file, the first finishes and removes it, then the second gets the lock of a dead file."""
    first = opened(path)
    lock = system.flock

    def slowly(descriptor: int, operation: int) -> None:
        if path.exists():
            first.close()
            path.unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(system, "flock", slowly)
    with pytest.raises(DestinationBusy):
        opened(path)
    monkeypatch.undo()
    assert not path.exists()
    assert listed(path) is None


def test_many_threads_add(path: Path) -> None:
    journal = opened(path)
    threads = [
        threading.Thread(target=lambda n=n: [journal.add(range(c, c + 1)) for c in range(n, 400, 4)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert sorted(listed(path) or []) == list(range(400))


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        opened(path)
    assert target.read_bytes() == b"precious"


def test_a_directory_in_its_place(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        opened(path)


def test_no_descriptor_leaks_when_it_is_busy(path: Path) -> None:
    journal = opened(path)
    before = open_below(path.parent)
    for _ in range(3):
        with pytest.raises(DestinationBusy):
            opened(path)
    assert open_below(path.parent) == before
    journal.close()


def test_a_journal_that_cannot_be_begun_is_not_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(system, "write", full)
    with pytest.raises(StorageError, match="no space left"):
        opened(path)
    monkeypatch.undo()
    assert listed(path) is None


def test_short_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(system, "write", lambda descriptor, data: write(descriptor, data[:3]))
    journal = opened(path)
    journal.add(range(5, 8))
    monkeypatch.undo()
    journal.close()
    assert listed(path) == [5, 6, 7]


def test_where_no_file_can_be_cut_short(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be taken away is written over: entries are hints, and those for chunk 0 harm nobody."""
    journal = opened(path)
    journal.add(range(5, 9))
    journal.close()
    with path.open("ab") as stream:
        stream.write(b"\1\2")
    RefusingFileSystem(tmp_path, monkeypatch).refuses("ftruncate", errno.EOPNOTSUPP)
    journal = opened(path)
    journal.add(range(11, 12))
    journal.close()
    assert (listed(path) or [])[:4] == [5, 6, 7, 8]
    assert (listed(path) or [])[-1] == 11
    other = opened(path, "another")
    assert not other.resumed
    other.add(range(3, 4))
    other.close()
    again = opened(path, "another")
    assert again.resumed
    assert set(again.chunks or ()) == {0, 3}
    again.close()
