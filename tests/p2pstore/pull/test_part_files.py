"""What others did to the files of a partial form is noticed; what we did ourselves is not taken for theirs."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.files.stamps import FileStamp
from engine.files.system import system
from p2pstore.errors import ForeignFile, StorageError
from p2pstore.pull import part_files as module
from p2pstore.pull.part_files import MAX_OPEN, PartFiles
from tests.descriptors import open_below
from tests.p2pstore.samples import content, manifest_of

SIZE = 100
TREE = manifest_of({"a": content(SIZE), "sub/b": content(SIZE, 1), "empty": b""})
FILE = manifest_of({"": content(SIZE)})


def files_of(part: Path, manifest: object = TREE) -> PartFiles:
    assert manifest in (TREE, FILE)
    made = TREE if manifest == TREE else FILE
    if made.kind == "directory":
        (part / "sub").mkdir(parents=True)
    files = PartFiles(part, made)
    files.open_root()
    for number in range(len(made.files)):
        files.make(number, fresh=True)
    files.begin()
    return files


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "part"


@pytest.fixture
def files(part: Path) -> Iterator[PartFiles]:
    made = files_of(part)
    yield made
    made.close()


def write(files: PartFiles, number: int, data: bytes, at: int = 0) -> None:
    descriptor = files.borrow(number)
    files.before_write(number, descriptor)
    os.pwrite(descriptor, data, at)
    files.give_back(number)


def doubts(files: PartFiles) -> list[int]:
    files.settle()
    return files.in_doubt()


def test_our_own_writes_raise_no_doubt(files: PartFiles) -> None:
    for number in (0, 2, 0):
        write(files, number, b"x" * SIZE)
    assert doubts(files) == []
    stamps, changed = files.stamps()
    assert [numbers[2] for numbers in FileStamp.unpack_all(stamps)] == [SIZE, 0, SIZE]
    assert changed == []


def test_more_files_than_stay_open(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 1)
    files = files_of(part)
    before = open_below(part)
    for _ in range(3):
        for number in (0, 1, 2):
            write(files, number, b"x" * TREE.files[number].size)
    assert open_below(part) == before + 1
    assert doubts(files) == []
    files.close()


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"!")


def overwrite_and_put_the_times_back(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"?" * SIZE)
    other.replace(path)


def link(path: Path) -> None:
    os.link(path, path.parent.parent / "another name")


BY_OTHERS = [append, overwrite, overwrite_and_put_the_times_back, cut, replace, link]


@pytest.mark.parametrize("change", BY_OTHERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("when", ["before", "between", "while", "after"])
def test_what_others_do_is_noticed(files: PartFiles, part: Path, change: Callable[[Path], None], when: str) -> None:
    """Before our writes, between two of them, while a file is open and we write on, and after the last."""
    if when == "before":
        change(part / "a")
    write(files, 0, b"x" * 50)
    if when == "between":
        change(part / "a")
    descriptor = files.borrow(0)
    if when == "while":
        change(part / "a")
    files.before_write(0, descriptor)
    os.pwrite(descriptor, b"x" * 50, 50)
    files.give_back(0)
    if when == "after":
        change(part / "a")
    write(files, 2, b"x" * SIZE)
    assert doubts(files) == [0]


def test_what_others_write_while_it_is_only_read_is_noticed(part: Path) -> None:
    """Where nobody hears of their closing it, its times are all there is."""
    part.mkdir()
    files = PartFiles(part, manifest_of({"a": content(SIZE)}))
    files.open_root()
    files.make(0, fresh=True)
    write(files, 0, b"x" * SIZE)
    files.borrow(0)
    overwrite(part / "a")
    os.utime(part / "a", ns=(1, 1))
    files.give_back(0)
    assert doubts(files) == [0]
    files.close()


def test_one_who_closes_it_after_we_did(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they wrote is older than our last write, and the kernel tells of two closings in a row as of one."""
    monkeypatch.setattr(module, "MAX_OPEN", 1)
    files = files_of(part)
    with (part / "a").open("r+b", buffering=0) as foreign:
        files.borrow(0)
        foreign.write(b"!")
        write(files, 0, b"x" * (SIZE - 1), 1)
        files.give_back(0)
        write(files, 2, b"x" * SIZE)
        monkeypatch.undo()
    assert doubts(files) == [0]
    files.close()


def test_one_who_still_has_it_open(files: PartFiles, part: Path) -> None:
    with (part / "a").open("r+b"):
        assert doubts(files) == [0]


def test_what_is_hashed_again_is_in_doubt_no_more(files: PartFiles, part: Path) -> None:
    replace(part / "a")
    assert doubts(files) == [0]
    descriptor = files.open_to_read(0)
    files.before_clearing(0, descriptor)
    os.utime(part / "a", ns=(1, 1))
    assert not files.cleared(0, descriptor), "it was written to while it was hashed"
    assert files.in_doubt() == [0]
    files.before_clearing(0, descriptor)
    assert files.cleared(0, descriptor)
    os.close(descriptor)
    assert files.in_doubt() == []
    overwrite(part / "sub" / "b")
    assert files.stamps()[1] == [2]


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_file_is_foreign(files: PartFiles, part: Path, kind: str) -> None:
    (part / "a").unlink()
    if kind == "link":
        (part / "a").symlink_to("sub/b")
    elif kind == "directory":
        (part / "a").mkdir()
    else:
        os.mkfifo(part / "a")
    files.settle()
    with pytest.raises(ForeignFile, match="/a "):
        files.in_doubt()


def test_a_directory_that_was_exchanged(files: PartFiles, part: Path) -> None:
    write(files, 0, b"x" * SIZE)
    part.rename(part.with_name("moved"))
    (part / "sub").mkdir(parents=True)
    for entry in TREE.files:
        (part / entry.path).write_bytes(b"?" * entry.size)
    assert doubts(files) == [0, 1, 2]


def test_bytes_go_where_they_went_before(part: Path) -> None:
    files = files_of(part, FILE)
    descriptor = files.borrow(0)
    part.rename(part.with_name("moved"))
    part.write_bytes(b"somebody's")
    os.pwrite(descriptor, b"x" * SIZE, 0)
    files.give_back(0)
    assert part.read_bytes() == b"somebody's"
    assert doubts(files) == [0]
    files.close()


def test_a_file_with_other_names_is_made_anew(part: Path) -> None:
    files = files_of(part)
    write(files, 0, b"x" * SIZE)
    files.close()
    os.link(part / "a", part.with_name("kept"))
    again = PartFiles(part, TREE)
    again.open_root()
    for number in range(3):
        again.make(number, fresh=False)
    write(again, 0, b"y" * SIZE)
    assert part.with_name("kept").read_bytes() == b"x" * SIZE
    assert doubts(again) == []
    again.close()


@pytest.mark.parametrize("call", ["unlink", "open"])
def test_a_file_that_cannot_be_made_anew(part: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """No descriptor is closed twice: between the two its number may be another thread's."""
    files_of(part).close()
    os.link(part / "a", part.with_name("kept"))
    again = PartFiles(part, TREE)
    again.open_root()
    real, closed = getattr(system, call), []

    def refuses(name: str, *args: int, **kwargs: int) -> object:
        if call == "open" and not args[0] & os.O_EXCL:
            return real(name, *args, **kwargs)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def close(descriptor: int) -> None:
        os.close(descriptor)
        closed.append(descriptor)

    monkeypatch.setattr(system, call, refuses)
    monkeypatch.setattr(system, "close", close)
    with pytest.raises(OSError, match="Input/output error"):
        again.make(0, fresh=False)
    assert len(closed) == 1
    again.close()


def test_two_names_that_are_one(part: Path) -> None:
    files = files_of(part)
    with pytest.raises(FileExistsError):
        files.make(0, fresh=True)
    files.close()


def test_a_file_that_cannot_be_opened(files: PartFiles, part: Path) -> None:
    (part / "a").unlink()
    for _ in range(2):
        with pytest.raises(StorageError, match=str(part / "a")):
            files.borrow(0)
    write(files, 2, b"x")


def test_many_threads(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 1)
    files = files_of(part)

    def work(seed: int) -> None:
        for turn in range(200):
            number = (seed + turn) % 3
            write(files, number, bytes([seed]) * (TREE.files[number].size // 4), seed * 25)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (part / "a").read_bytes() == b"".join(bytes([n]) * 25 for n in range(4))
    assert doubts(files) == []
    files.close()
    assert MAX_OPEN * 16 <= 1024


def many(part: Path, count: int) -> PartFiles:
    """More files than are watched."""
    manifest = manifest_of({f"{number:05}": b"x" for number in range(count)})
    part.mkdir()
    files = PartFiles(part, manifest)
    files.open_root()
    for number in range(count):
        files.make(number, fresh=True)
    files.begin()
    return files


def test_a_small_file_of_many_is_written_at_once(part: Path) -> None:
    files = many(part, module.MAX_WATCHED + 1)
    for number in range(module.MAX_WATCHED + 1):
        assert files.write_whole(number, memoryview(b"x"))
    assert doubts(files) == []
    assert (part / "00007").read_bytes() == b"x"
    files.close()


@pytest.mark.parametrize("how", ["cut", "written", "replaced"])
def test_what_others_did_to_a_small_file_before_it_is_written_is_noticed(part: Path, how: str) -> None:
    files = many(part, module.MAX_WATCHED + 1)
    for number in range(module.MAX_WATCHED + 1):
        path = part / f"{number:05}"
        if number == 7 and how == "cut":
            os.truncate(path, 0)
        elif number == 7 and how == "written":
            path.write_bytes(b"y")
            os.utime(path, ns=(1, 1))
        elif number == 7:
            (part.parent / "other").write_bytes(b"y")
            os.replace(part.parent / "other", path)
        assert files.write_whole(number, memoryview(b"x"))
    assert doubts(files) == [7]
    files.close()


def test_a_small_file_that_is_watched_or_open_is_borrowed(files: PartFiles, part: Path) -> None:
    assert not files.write_whole(0, memoryview(b"x"))
    others = many(part.parent / "many", module.MAX_WATCHED + 1)
    others.borrow(0)
    assert not others.write_whole(0, memoryview(b"x"))
    assert not others.write_whole(1, memoryview(bytes(module.SMALL_BYTES + 1)))
    others.give_back(0)
    others.close()


def test_what_no_disk_takes_is_an_error_of_the_disk(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = many(part, module.MAX_WATCHED + 1)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(system, "pwrite", full)
    with pytest.raises(StorageError, match="no space"):
        files.write_whole(0, memoryview(b"x"))
    files.close()


def test_files_have_their_modes_as_soon_as_they_are_made(part: Path) -> None:
    before = os.umask(0o022)
    try:
        files = files_of(part)
        assert doubts(files) == []
        assert files.unset_modes == []
        files.close()
    finally:
        os.umask(before)


def test_modes_that_could_not_be_made_so_are_listed(part: Path) -> None:
    before = os.umask(0o077)
    try:
        files = files_of(part)
    finally:
        os.umask(before)
    for number in range(len(TREE.files)):
        write(files, number, b"x" * TREE.files[number].size)
    doubts(files)
    assert files.unset_modes == list(range(len(TREE.files)))
    files.close()
