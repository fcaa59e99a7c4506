"""Files behave as one buffer, within few descriptors, and never after they changed."""

from __future__ import annotations

import errno
import os
import random
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SourceChanged, StorageError
from engine.files.stamps import FileStamp
from engine.files.system import system
from engine.memory import buffers
from engine.memory import open_files as descriptors
from engine.memory.buffers import FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan


def make(directory: Path, sizes: list[int], *, stamped: bool = True) -> tuple[list[FileSpan], bytes]:
    rng = random.Random(7)
    spans, whole = [], b""
    for number, size in enumerate(sizes):
        path = directory / f"file {number}"
        data = rng.randbytes(size)
        path.write_bytes(data)
        spans.append(FileSpan(str(path), size, FileStamp.of(path.stat()) if stamped else None))
        whole += data
    return spans, whole


def sent(buffer: buffers.Buffer, offset: int, length: int) -> bytes:
    left, right = socket.socketpair()
    got = bytearray()

    def drain() -> None:
        while data := right.recv(65536):
            got.extend(data)

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        done = 0
        while done < length:
            done += buffer.send(left, offset + done, length - done)
    finally:
        left.close()
        reader.join()
        right.close()
    return bytes(got)


SIZES = [0, 10, 0, 0, 1, 300_000, 0, 7, 0]
WHOLE = sum(SIZES)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[FilesBuffer, bytes]:
    spans, whole = make(tmp_path_factory.mktemp("several"), SIZES)
    return FilesBuffer("dir", spans), whole


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    """Offset and length within ``several``, at the borders of its files more often than not."""
    offset = draw(st.sampled_from([0, 9, 10, 11, 300_010, 300_011]) | st.integers(0, WHOLE - 1))
    return offset, draw(st.integers(1, min(40, WHOLE - offset)) | st.just(WHOLE - offset))


@given(ranges())
def test_any_range_of_many_files(several: tuple[FilesBuffer, bytes], part: tuple[int, int]) -> None:
    buffer, whole = several
    assert buffer.length == len(whole) == WHOLE
    offset, length = part
    assert buffer.ready(offset, length)
    assert sent(buffer, offset, length) == whole[offset : offset + length]
    out = bytearray(length)
    buffer.read_into(offset, memoryview(out))
    assert out == whole[offset : offset + length]
    run = buffer.file_run(offset, length)
    assert run is not None
    assert 0 < run.length <= length
    assert os.pread(run.fd, run.length, run.offset) == whole[offset : offset + run.length]
    os.close(run.fd)


def test_ten_thousand_files_take_few_descriptors(tmp_path: Path) -> None:
    spans, whole = make(tmp_path, [1] * 10_000)
    buffer = FilesBuffer("dir", spans)
    before = len(os.listdir("/proc/self/fd"))
    assert sent(buffer, 0, len(whole)) == whole
    assert len(os.listdir("/proc/self/fd")) <= before + descriptors.MAX_OPEN_FILES
    buffer.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("how", ["written", "replaced", "removed", "shorter", "fifo"])
def test_a_changed_file_is_refused_and_reported_once(tmp_path: Path, how: str) -> None:
    spans, whole = make(tmp_path, [100, 100])
    calls: list[tuple[str, str]] = []
    buffer = FilesBuffer("dir", spans, on_changed=lambda path, detail: calls.append((path, detail)))
    path = Path(spans[1].path)
    if how == "written":
        path.write_bytes(bytes(100))
        os.utime(path, ns=(0, 1))
    elif how == "replaced":
        other = tmp_path / "other"
        other.write_bytes(bytes(100))
        stamp = spans[1].stamp
        assert stamp is not None
        os.utime(other, ns=(stamp.mtime_ns, stamp.mtime_ns))
        other.replace(path)
    elif how == "shorter":
        os.truncate(path, 50)
    else:
        path.unlink()
        if how == "fifo":
            os.mkfifo(path)
    assert buffer.ready(0, 100)
    assert sent(buffer, 0, 100) == whole[:100]
    for _ in range(2):
        assert not buffer.ready(0, 101)
        with pytest.raises(SourceChanged):
            sent(buffer, 100, 1)
        with pytest.raises(SourceChanged):
            buffer.file_run(100, 1)
    assert [call[0] for call in calls] == [str(path)]
    assert calls[0][1]


def test_a_change_is_noticed_while_the_file_is_open(tmp_path: Path) -> None:
    spans, _ = make(tmp_path, [100])
    buffer = FilesBuffer("dir", spans)
    assert buffer.ready(0, 100)
    os.truncate(spans[0].path, 99)
    assert not buffer.ready(0, 100)


def test_without_a_stamp_only_missing_bytes_are_noticed(tmp_path: Path) -> None:
    spans, _ = make(tmp_path, [100], stamped=False)
    buffer = FilesBuffer("dir", spans)
    Path(spans[0].path).write_bytes(b"x" * 50)
    assert sent(buffer, 0, 50) == b"x" * 50
    with pytest.raises(SourceChanged):
        sent(buffer, 0, 51)
    with pytest.raises(SourceChanged):
        buffer.read_into(0, memoryview(bytearray(51)))


def test_servable_gates(tmp_path: Path) -> None:
    spans, _ = make(tmp_path, [100], stamped=False)
    asked: list[tuple[int, int]] = []

    def servable(offset: int, length: int) -> bool:
        asked.append((offset, length))
        return offset >= 50

    buffer = FilesBuffer("dir", spans, servable=servable)
    assert not buffer.ready(49, 2)
    assert buffer.ready(50, 2)
    assert asked == [(49, 2), (50, 2)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_is_storage(tmp_path: Path) -> None:
    spans, _ = make(tmp_path, [100])
    Path(spans[0].path).chmod(0)
    buffer = FilesBuffer("dir", spans)
    assert not buffer.ready(0, 1)
    with pytest.raises(StorageError):
        buffer.file_run(0, 1)


def test_a_file_in_use_survives_its_eviction(tmp_path: Path) -> None:
    cache = descriptors.DescriptorCache(limit=1)
    for name in "ab":
        (tmp_path / name).write_text(name)
    first = cache.acquire((0, 0), str(tmp_path / "a"))
    second = cache.acquire((0, 1), str(tmp_path / "b"))
    assert len(cache) == 1
    assert os.pread(first.fd, 1, 0) == b"a"
    cache.release(first)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(first.fd)
    cache.discard(0)
    assert os.pread(second.fd, 1, 0) == b"b"
    cache.release(second)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(second.fd)


def test_memory_is_sent_and_written() -> None:
    data = bytearray(b"0123456789")
    buffer = MemoryBuffer("m", data, writable=True)
    assert sent(buffer, 2, 3) == b"234"
    view = buffer.view(4, 2)
    assert view is not None
    view[:] = b"xy"
    view.release()
    assert data == b"0123xy6789"
    assert buffer.file_run(0, 1) is None
    read_only = MemoryBuffer("m", b"12").view(0, 1)
    assert read_only is not None
    assert read_only.readonly
    read_only.release()
    buffer.close()


class Disk:
    """A disk that fails to order: what is asked of the files that are served raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.reported: list[tuple[str, int, str]] = []

    def fails(self, *calls: str, number: int = errno.EIO) -> None:
        def refuse(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        for call in calls:
            self._monkeypatch.setattr(system, call, refuse)

    def mends(self) -> None:
        self._monkeypatch.undo()

    def report(self, path: str, offset: int, detail: str) -> None:
        self.reported.append((path, offset, detail))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_disk_that_fails_is_the_files_fault_and_not_the_sockets(tmp_path: Path, disk: Disk) -> None:
    """D18: an EIO of sendfile was taken for the socket's, and nobody heard of the source."""
    spans, _ = make(tmp_path, [100, 100])
    buffer = FilesBuffer("dir", spans, on_unreadable=disk.report)
    left, right = socket.socketpair()
    with left, right:
        disk.fails("sendfile", "preadv")
        with pytest.raises(StorageError, match="Input/output error"):
            buffer.send(left, 130, 10)
    assert disk.reported == [(spans[1].path, 30, os.strerror(errno.EIO))]


def test_a_socket_that_fails_is_not_the_files_fault(tmp_path: Path, disk: Disk) -> None:
    spans, _ = make(tmp_path, [100])
    buffer = FilesBuffer("dir", spans, on_unreadable=disk.report)
    left, right = socket.socketpair()
    right.close()
    with left, pytest.raises(OSError) as caught:
        buffer.send(left, 0, 10)
    assert not isinstance(caught.value, StorageError)
    disk.fails("sendfile", number=errno.ETIMEDOUT)
    with socket.socket() as sock, pytest.raises(TimeoutError):
        buffer.send(sock, 0, 10)
    assert disk.reported == []


def test_a_status_that_cannot_be_had_keeps_no_file_in_use(tmp_path: Path, disk: Disk) -> None:
    """D18: the cached file's user count leaked, so that it was never closed."""
    spans, _ = make(tmp_path, [100])
    before = len(os.listdir("/proc/self/fd"))
    buffer = FilesBuffer("dir", spans, on_unreadable=disk.report)
    assert buffer.ready(0, 100)
    left, right = socket.socketpair()
    with left, right:
        disk.fails("fstat", number=errno.ESTALE)
        for _ in range(3):
            assert not buffer.ready(0, 100)
            with pytest.raises(StorageError):
                buffer.send(left, 0, 10)
    disk.mends()
    buffer.close()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert {path for path, _, _ in disk.reported} == {spans[0].path}


def test_a_limit_of_our_own_is_not_the_files_fault(tmp_path: Path, disk: Disk) -> None:
    spans, _ = make(tmp_path, [100])
    buffer = FilesBuffer("dir", spans, on_unreadable=disk.report)
    disk.fails("open", number=errno.EMFILE)
    assert not buffer.ready(0, 100)
    assert disk.reported == []


def sent_at_once(buffer: buffers.Buffer, offset: int, length: int) -> bytes:
    left, right = socket.socketpair()
    with left, right:
        return right.recv(buffer.send(left, offset, length))


@pytest.mark.parametrize("stamped", [True, False])
def test_small_files_are_sent_together(tmp_path: Path, stamped: bool) -> None:
    spans, whole = make(tmp_path, [10, 0, 20, 3, 5], stamped=stamped)
    buffer = FilesBuffer("dir", spans)
    assert sent_at_once(buffer, 4, 30) == whole[4:34]
    assert sent_at_once(buffer, 4, 6) == whole[4:10], "of one file alone it is sendfile's"


def test_what_precedes_a_changed_small_file_is_sent(tmp_path: Path) -> None:
    spans, whole = make(tmp_path, [10, 20, 30])
    calls: list[str] = []
    buffer = FilesBuffer("dir", spans, on_changed=lambda path, _: calls.append(path))
    os.utime(spans[1].path, ns=(0, 1))
    assert sent_at_once(buffer, 0, 60) == whole[:10]
    with pytest.raises(SourceChanged):
        sent_at_once(buffer, 10, 50)
    assert calls == [spans[1].path]


def test_a_small_file_whose_time_is_cut_by_its_file_system_is_sent(tmp_path: Path) -> None:
    spans, whole = make(tmp_path, [10, 20])
    path = Path(spans[0].path)
    os.utime(path, ns=(1_234_567_890, 1_234_567_890))
    spans[0] = FileSpan(str(path), 10, FileStamp.of(path.stat()))
    os.utime(path, ns=(1_000_000_000, 1_000_000_000))
    assert sent_at_once(FilesBuffer("dir", spans), 0, 30) == whole


def test_of_many_files_a_changed_one_is_noticed_before_any_is_sent(tmp_path: Path) -> None:
    count = 3 * buffers.MANY_FILES
    spans, _ = make(tmp_path, [2] * count)
    buffer = FilesBuffer("dir", spans)
    assert buffer.ready(0, 2 * count)
    os.utime(spans[-1].path, ns=(0, 1))
    assert not buffer.ready(0, 2 * count)
    assert buffer.ready(0, 2 * count - 2)
