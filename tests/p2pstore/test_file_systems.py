"""Register, serve, get, resume and verify on a file system that refuses or lies: every call, every answer.

What a file system cannot do ends nothing. A disk that is broken or full is told as that, before anything counts as
verified, and never stands under the final name.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.files.refusals import REFUSALS, said
from engine.memory.buffers import FilesBuffer
from engine.memory.file_spans import FileSpan
from p2pstore.errors import BadSource, MooncakeError, StorageError
from p2pstore.holding.bad_chunks import bad_chunks
from p2pstore.holding.catalog import Holding
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.source import scan, stamp_fault
from p2pstore.objects.tree_hash import hash_tree
from p2pstore.pull.file_destination import FileDestination
from tests.descriptors import open_below
from tests.p2pstore.samples import MIB, content, manifest_of, read_tree, record_of, write_tree
from tests.refusing import FSYNC_DIRECTORY, RefusingFileSystem

CHUNK = MIB
FILES = {"a": content(CHUNK + 1), "b/c": content(300, 2), "b/empty": b""}
FILE = {"": content(CHUNK + 7, 3)}
OBJECTS = {"directory": FILES, "file": FILE}

CALLS = {
    "flock": "flock",
    "lock": "lock_range",
    "fsync": "fsync",
    "fsync of a directory": FSYNC_DIRECTORY,
    "syncfs": "syncfs",
    "chmod": "chmod",
    "rename without replacing": "renameat2",
    "exchange of names": "renameat2",
    "link": "link",
    "ftruncate": "ftruncate",
    "punch": "punch",
    "statvfs": "statvfs",
    "sendfile": "sendfile",
    "mmap": "map_shared",
    "socket": "bind",
}
"""The call of each row of the table."""

BEFORE = {
    "lock": {"flock": errno.ENOLCK},
    "syncfs": {"fsync": errno.EINVAL, FSYNC_DIRECTORY: errno.EINVAL},
    "link": {"renameat2": errno.EINVAL},
}
"""What must be refused before a row's call is made at all."""

WHATEVER = {"type_of": (errno.ENOSYS, errno.EPERM), "clone": (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.EIO)}
"""Calls that may fail in any way."""

CELLS = [(row, number) for row in CALLS for number in sorted(REFUSALS[row].errors)]
CELLS += [(call, number) for call, numbers in WHATEVER.items() for number in numbers]


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingFileSystem]:
    (tmp_path / "remote").mkdir()
    made = RefusingFileSystem(tmp_path / "remote", monkeypatch)
    yield made
    made.go_on.set()


def registered(path: Path) -> tuple[Manifest, Sequence[FileSpan]]:
    tree = scan(path)
    return hash_tree(tree, hash_name="xxh3_128", chunk_size=CHUNK), tree.files


def served(spans: Sequence[FileSpan]) -> bytes:
    """All bytes, as a peer is sent them."""
    buffer = FilesBuffer("n", spans)
    left, right = socket.socketpair()
    left.settimeout(60)
    found = bytearray()
    with left, right:
        while len(found) < buffer.length:
            count = buffer.send(left, len(found), min(buffer.length - len(found), 4096))
            while count:
                piece = right.recv(count)
                found += piece
                count -= len(piece)
    buffer.close()
    return bytes(found)


def write(destination: FileDestination, numbers: range, files: dict[str, bytes]) -> None:
    data = b"".join(files[path] for path in sorted(files))
    for number in numbers:
        chunk = destination.manifest.chunk(number)
        sink = destination.sink(range(number, number + 1), memoryview(bytearray(1 << 18)))
        try:
            done = 0
            while done < chunk.length:
                view = sink.buffer(chunk.length - done)
                at = chunk.offset + done
                view[:] = data[at : at + len(view)]
                done += len(view)
                sink.filled(len(view))
        finally:
            sink.close()
        destination.keep(range(number, number + 1))
        destination.verified.add(number)


def brought(path: Path, files: dict[str, bytes], *, force: bool = False) -> tuple[Manifest, Sequence[FileSpan]]:
    """A get that is broken off, and one that resumes it."""
    manifest = manifest_of(files, CHUNK)
    first = FileDestination(path, manifest, "n", force=force)
    try:
        write(first, range(1), files)
    finally:
        assert first.abort()
    second = FileDestination(path, manifest, "n", force=force)
    try:
        second.recheck(threading.Event())
        assert list(second.verified) == [0]
        write(second, range(1, manifest.chunks), files)
        return manifest, second.finish()
    finally:
        second.abort()


def verified(path: Path, manifest: Manifest, spans: Sequence[FileSpan]) -> list[dict[str, Any]]:
    holding = Holding(record_of("n", manifest), "gold", path, spans)
    return bad_chunks(holding, manifest, lambda done, total: None, threading.Event())


def the_whole_job(root: Path, files: dict[str, bytes]) -> None:
    manifest, spans = brought(root / "copy", files)
    assert read_tree(root / "copy") == files
    assert [path.name for path in root.iterdir()] == ["copy"], "nothing is left behind"
    assert [stamp_fault(span) for span in spans] == [""] * len(spans), "what has not changed is not withdrawn"
    again, scanned = registered(root / "copy")
    assert [entry.chunks for entry in again.files] == [entry.chunks for entry in manifest.files]
    assert served(scanned) == served(spans) == b"".join(files[path] for path in sorted(files))
    assert verified(root / "copy", manifest, spans) == []


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize(("call", "number"), CELLS)
def test_what_cannot_be_done_ends_nothing(
    tmp_path: Path, refusing: RefusingFileSystem, call: str, number: int, kind: str
) -> None:
    for name, before in BEFORE.get(call, {}).items():
        refusing.refuses(name, before)
    refusing.refuses(CALLS.get(call, call), number)
    the_whole_job(tmp_path / "remote", OBJECTS[kind])


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_what_is_there_is_replaced(tmp_path: Path, refusing: RefusingFileSystem, number: int, kind: str) -> None:
    for call in ("renameat2", "link", "flock", "lock_range", "chmod"):
        refusing.refuses(call, number)
    old = {"": b"old"} if kind == "file" else {"old": b"old"}
    write_tree(tmp_path / "remote" / "copy", old)
    brought(tmp_path / "remote" / "copy", OBJECTS[kind], force=True)
    assert read_tree(tmp_path / "remote" / "copy") == OBJECTS[kind]


@pytest.mark.parametrize("kind", OBJECTS)
def test_everything_at_once(tmp_path: Path, refusing: RefusingFileSystem, kind: str) -> None:
    for name in (*CALLS.values(), *WHATEVER):
        refusing.refuses(name, errno.ENOSYS)
    before = os.umask(0o077)  # else files have the right mode as soon as they are made
    try:
        the_whole_job(tmp_path / "remote", OBJECTS[kind])
    finally:
        os.umask(before)
    texts = said.of(str(tmp_path / "remote"))
    for word in ("locks", "modes", "write a file out", "write a directory out"):
        assert sum(word in text for text in texts) == 1, texts


def changed(status: os.stat_result, **fields: int) -> SimpleNamespace:
    names = [name for name in dir(status) if name.startswith("st_")]
    return SimpleNamespace(**{**{name: getattr(status, name) for name in names}, **fields})


COUNT = iter(range(10**6, 10**9))

LIES: dict[str, Callable[[os.stat_result], SimpleNamespace]] = {
    "no blocks": lambda status: changed(status, st_blocks=0),
    "inode numbers that change": lambda status: changed(status, st_ino=next(COUNT)),
    "devices that change": lambda status: changed(status, st_dev=next(COUNT)),
    "no inode numbers": lambda status: changed(status, st_ino=0),
    "no links": lambda status: changed(status, st_nlink=0),
    "no time": lambda status: changed(status, st_mtime_ns=0, st_mtime=0),
    "a time to come": lambda status: changed(status, st_mtime_ns=status.st_mtime_ns + 10**18),
    "whole seconds": lambda status: changed(status, st_mtime_ns=status.st_mtime_ns // 10**9 * 10**9),
    "two seconds": lambda status: changed(status, st_mtime_ns=status.st_mtime_ns // (2 * 10**9) * 2 * 10**9),
    "blocks of a megabyte": lambda status: changed(status, st_blksize=1 << 20),
    "another owner": lambda status: changed(status, st_uid=12345, st_gid=12345),
    "its own modes": lambda status: changed(status, st_mode=status.st_mode | 0o777),
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("lie", LIES)
def test_lies_about_files(tmp_path: Path, refusing: RefusingFileSystem, lie: str, kind: str) -> None:
    for call in ("stat", "lstat", "fstat"):
        refusing.answers(call, lambda real, *args, **kwargs: LIES[lie](real(*args, **kwargs)))
    the_whole_job(tmp_path / "remote", OBJECTS[kind])


def test_times_that_are_cut_later(tmp_path: Path, refusing: RefusingFileSystem) -> None:
    """What was just written has nanoseconds; when the kernel has forgotten the file, it has what is stored."""
    _, spans = brought(tmp_path / "remote" / "copy", FILE)
    for call in ("stat", "lstat", "fstat"):
        refusing.answers(call, lambda real, *args, **kwargs: LIES["whole seconds"](real(*args, **kwargs)))
    assert [stamp_fault(span) for span in spans] == [""]
    assert served(spans) == FILE[""]


@pytest.mark.parametrize("answer", [(0, 0), (0, 4096), (4096, 0)])
def test_room_that_is_told_as_zeros(tmp_path: Path, refusing: RefusingFileSystem, answer: tuple[int, int]) -> None:
    blocks, size = answer
    refusing.answers("statvfs", lambda real, path: SimpleNamespace(f_blocks=blocks, f_bavail=0, f_frsize=size))
    the_whole_job(tmp_path / "remote", FILES)


@pytest.mark.parametrize("listed", [True, False])
def test_a_resumed_get_asks_for_the_room_that_is_missing(
    tmp_path: Path, refusing: RefusingFileSystem, listed: bool
) -> None:
    """Where no blocks are told of, what the journal lists counts as there."""
    manifest = manifest_of(FILE, CHUNK)
    first = FileDestination(tmp_path / "remote" / "copy", manifest, "n")
    write(first, range(1 if listed else 0), FILE)
    first.abort()
    for call in ("stat", "lstat", "fstat"):
        refusing.answers(call, lambda real, *args, **kwargs: LIES["no blocks"](real(*args, **kwargs)))
    refusing.answers("statvfs", lambda real, path: SimpleNamespace(f_blocks=9, f_bavail=1, f_frsize=CHUNK))
    if listed:
        FileDestination(tmp_path / "remote" / "copy", manifest, "n").abort()
    else:
        with pytest.raises(StorageError, match="no space left"):
            FileDestination(tmp_path / "remote" / "copy", manifest, "n")


SHORT: dict[str, Callable[..., Any]] = {
    "preadv": lambda real, fd, views, at: real(fd, [views[0][:1000]], at),
    "pwrite": lambda real, fd, data, at: real(fd, data[:1000], at),
    "write": lambda real, fd, data: real(fd, data[:3]),
    "sendfile": lambda real, out, fd, at, count: real(out, fd, at, min(count, 100)),
}


@pytest.mark.parametrize("call", SHORT)
def test_little_at_a_time(tmp_path: Path, refusing: RefusingFileSystem, call: str) -> None:
    refusing.answers(call, SHORT[call])
    the_whole_job(tmp_path / "remote", FILES)


def test_a_sendfile_that_sends_nothing(tmp_path: Path, refusing: RefusingFileSystem) -> None:
    refusing.answers("sendfile", lambda real, *args: 0)
    the_whole_job(tmp_path / "remote", FILES)


@pytest.mark.parametrize("number", [errno.EIO, errno.EAGAIN, errno.ETIMEDOUT])
def test_an_error_that_passes(tmp_path: Path, refusing: RefusingFileSystem, number: int) -> None:
    refusing.refuses("preadv", number, times=1)
    the_whole_job(tmp_path / "remote", FILES)


@pytest.mark.parametrize("call", ["fstat", "preadv", "sendfile"])
def test_a_stale_handle_is_opened_anew(tmp_path: Path, refusing: RefusingFileSystem, call: str) -> None:
    _, spans = brought(tmp_path / "remote" / "copy", FILE)
    before = open_below(tmp_path)
    buffer = FilesBuffer("n", spans)
    assert buffer.ready(0, 1)
    refusing.refuses(call, errno.ESTALE, times=1)
    view = memoryview(bytearray(buffer.length))
    if call == "sendfile":
        assert served(spans) == FILE[""]
    else:
        buffer.read_into(0, view)
        assert view == FILE[""]
    buffer.close()
    assert open_below(tmp_path) == before


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EMFILE, errno.ENOMEM])
def test_a_look_that_fails_once_withdraws_nothing(tmp_path: Path, refusing: RefusingFileSystem, number: int) -> None:
    _, spans = brought(tmp_path / "remote" / "copy", FILE)
    for call in ("stat", "lstat"):
        refusing.refuses(call, number, times=1)
    assert stamp_fault(spans[0]) == ""


FAULTS = [errno.EIO, errno.ENOSPC, errno.EDQUOT]


@pytest.mark.parametrize("number", FAULTS)
@pytest.mark.parametrize("call", ["pwrite", "fsync", FSYNC_DIRECTORY, "close", "ftruncate", "write", "syncfs"])
def test_a_disk_that_is_broken_or_full_is_told_before_the_object_counts(
    tmp_path: Path, refusing: RefusingFileSystem, call: str, number: int
) -> None:
    """And the same get goes on when it is mended."""
    if call == "syncfs":
        refusing.refuses("fsync", errno.EINVAL)
    if call == "close":
        seen = []

        def fails_once(real: Callable[[int], None], fd: int) -> None:
            writable = os.readlink(f"/proc/self/fd/{fd}").endswith("/part")
            real(fd)
            if writable and len(seen) < 20:
                seen.append(fd)
                raise OSError(number, os.strerror(number))

        refusing.answers("close", fails_once)
    else:
        refusing.refuses(call, number)
    path = tmp_path / "remote" / "copy"
    with pytest.raises(StorageError, match=os.strerror(number).lower()):
        brought(path, FILE)
    assert not path.exists() or call == FSYNC_DIRECTORY
    if call != FSYNC_DIRECTORY:
        refusing.behaves()
        manifest = manifest_of(FILE, CHUNK)
        second = FileDestination(path, manifest, "n")
        second.recheck(threading.Event())
        write(second, range(manifest.chunks), FILE)
        second.finish()
        assert read_tree(path) == FILE


def test_a_size_that_does_not_grow_is_found_out_before_the_rename(tmp_path: Path, refusing: RefusingFileSystem) -> None:
    """A file system that takes writes and keeps none."""
    refusing.answers("pwrite", lambda real, fd, data, at: len(data))
    refusing.refuses("ftruncate", errno.EOPNOTSUPP)
    path = tmp_path / "remote" / "copy"
    manifest = manifest_of(FILE, CHUNK)
    destination = FileDestination(path, manifest, "n")
    write(destination, range(manifest.chunks), FILE)
    with pytest.raises(StorageError, match="it has 0 bytes"):
        destination.finish()
    destination.abort()
    assert not path.exists()


def test_a_file_that_is_said_to_be_empty_and_is_not(tmp_path: Path, refusing: RefusingFileSystem) -> None:
    """It would be registered as nothing, without a word."""
    write_tree(tmp_path / "remote" / "copy", FILE)
    for call in ("stat", "lstat", "fstat"):
        refusing.answers(call, lambda real, *args, **kwargs: changed(real(*args, **kwargs), st_size=0))
    with pytest.raises(BadSource, match="is empty, and it is not"):
        registered(tmp_path / "remote" / "copy")


def test_a_registration_of_proc() -> None:
    with pytest.raises(MooncakeError, match="is empty, and it is not"):
        scan(Path("/proc/self/status"))
