"""Memory that processes share: of a fixed size, gone with its last user, and not a forked child's."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.memory.copying import address_of
from engine.memory.shared import MappedFileBuffer, SharedBuffer, SharedMemory, map_handed_over
from tests.forking import in_child

LENGTH = 1 << 20


def mapped() -> set[str]:
    """The mappings of shared memories that this process has."""
    return {line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:mooncake" in line}


def test_what_one_side_writes_the_other_reads() -> None:
    memory = SharedMemory(LENGTH)
    other = map_handed_over(memory.fd).view()
    memory.view[10:15] = b"hello"
    assert other[10:15] == b"hello"
    other[LENGTH - 1 :] = b"!"
    assert memory.view[LENGTH - 1 :] == b"!"
    memory.close()


@pytest.mark.parametrize("start", [0, 1, 2048])
def test_it_begins_where_in_a_page_it_is_told(start: int) -> None:
    memory = SharedMemory(LENGTH, start=start)
    buffer = SharedBuffer("s", memory)
    assert len(memory.view) == LENGTH
    assert address_of(memory.view) % 4096 == start
    memory.view[7:12] = b"hello"
    run = buffer.file_run(7, 5)
    assert run is not None
    other = map_handed_over(run.fd).view()
    assert other[run.offset : run.offset + 5] == b"hello"
    os.close(run.fd)
    buffer.close()


def test_its_size_stays() -> None:
    memory = SharedMemory(LENGTH)
    for size in (0, LENGTH - 1, LENGTH + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    memory.close()


@pytest.mark.parametrize("length", [0, -1, 1 << 62])
def test_memory_that_cannot_be_had_is_refused_in_words(length: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UsageError, match=f"shared memory of {length}|{length} bytes of shared memory"):
        SharedMemory(length)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_what_could_be_cut_short_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(LENGTH))
    loose = os.memfd_create("loose")
    os.ftruncate(loose, LENGTH)
    for fd in (os.open(tmp_path / "file", os.O_RDWR), loose):
        with pytest.raises(UsageError, match="no memory of a fixed size"):
            map_handed_over(fd)
        os.close(fd)


def test_it_is_let_go_when_its_last_view_is() -> None:
    before = mapped()
    memory = SharedMemory(LENGTH)
    assert len(mapped() - before) == 1
    part = memory.view[100:200]
    memory.close()
    memory.close()
    gc.collect()
    part[0] = 7
    assert len(mapped() - before) == 1, "a view was left without its memory"
    del part
    gc.collect()
    assert not mapped() - before


def test_a_forked_child_has_none_of_it_and_takes_none_away() -> None:
    memory = SharedMemory(LENGTH)
    memory.view[:2] = b"ok"

    def look() -> tuple[set[str], bool]:
        leads_nowhere = os.path.realpath(f"/proc/self/fd/{memory.fd}") == os.devnull
        memory.close()
        gc.collect()
        return mapped(), leads_nowhere

    assert in_child(look) == (set(), True)
    assert memory.view[:2] == b"ok"
    memory.close()


def test_as_a_buffer_it_leads_to_its_descriptor() -> None:
    memory = SharedMemory(LENGTH)
    buffer = SharedBuffer("segment", memory)
    run = buffer.file_run(4096, 100)
    assert run is not None
    assert (run.offset, run.length) == (4096, 100)
    memory.view[4096:4099] = b"abc"
    assert os.pread(run.fd, 3, run.offset) == b"abc"
    os.close(run.fd)
    buffer.close()
    assert memory.fd == -1


def test_part_of_a_file_is_memory_that_peers_write(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(20_000))
    buffer = MappedFileBuffer("f", file, 9000, 8192)
    view = buffer.view(0, 9000)
    assert view is not None
    view[:3] = b"new"
    assert file.read_bytes()[8192:8195] == b"new"
    assert buffer.writable
    assert buffer.file_run(0, 1) is None, "a file can be cut short: it is handed to nobody"
    del view
    before = Path("/proc/self/maps").read_text().count(str(file))
    buffer.close()
    buffer.close()
    gc.collect()
    assert (before, Path("/proc/self/maps").read_text().count(str(file))) == (1, 0)


@pytest.mark.parametrize(
    ("length", "offset", "why"),
    [
        (1, 1, "from a multiple of"),
        (0, 0, "at least one"),
        (1, -4096, "from a multiple of"),
        (9000, 12288, "which has 20000"),
    ],
)
def test_what_is_no_part_of_a_file_is_told(tmp_path: Path, length: int, offset: int, why: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(20_000))
    with pytest.raises(UsageError, match=why):
        MappedFileBuffer("f", file, length, offset)
    with pytest.raises(UsageError, match=r"cannot be mapped: (Is a directory|No such file)"):
        MappedFileBuffer("f", tmp_path, 4096)
