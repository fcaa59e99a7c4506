"""Memory that was lent to a get is its owner's again when the get has returned or raised, whatever went wrong."""

from __future__ import annotations

import mmap
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from p2pstore import P2PStore
from p2pstore.calls import store_options as options_module
from p2pstore.errors import ChunkMismatch, MooncakeError, NoLivePeer, ObjectNotFound, UsageError
from p2pstore.node_options import NodeOptions
from p2pstore.pull import hope, memory_destination
from p2pstore.pull.discovery import Discovery
from p2pstore.swarm.peer import WINDOW_BYTES
from tests.p2pstore.samples import MIB, content, large, write_tree

DATA_BYTES = 3 * WINDOW_BYTES
"""More than can be under way at once."""
FILES = {"a": content(3 * MIB, 7), "b/c": content(MIB + 5, 8)}
WAIT = 60.0
MOMENT = 0.5
"""Seconds in which what must not happen would."""


def data() -> bytes:
    return large(DATA_BYTES, 6)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[P2PStore, P2PStore]]:
    """One that gives, over a local socket too, and one that takes; they know each other by address alone."""
    monkeypatch.setattr(options_module, "NodeOptions", partial(NodeOptions, local_socket=tmp_path / "socket"))
    with P2PStore(f"memory://{secrets.token_hex(8)}", node="giver") as giver:
        monkeypatch.setattr(options_module, "NodeOptions", NodeOptions)
        with P2PStore(f"memory://{secrets.token_hex(8)}", node="taker") as taker:
            yield giver, taker


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(data())
    return path


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    """What is got into; a test closes it itself where that is what it is about."""
    made = mmap.mmap(-1, DATA_BYTES)
    yield made
    made.close()


def register(store: P2PStore, source: Any, name: str = "n") -> None:
    store.register(name, source, chunk_size=MIB)


class Gate:
    """Holds up the threads that bring bytes into memory from the third piece on, until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._pieces = 0
        filled = memory_destination.MemorySink.filled

        def slowly(sink: memory_destination.MemorySink, count: int) -> None:
            self._pieces += 1
            if self._pieces >= 3:
                self.reached.set()
                assert self.opened.wait(WAIT)
            filled(sink, count)

        patch.setattr(memory_destination.MemorySink, "filled", slowly)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.opened.set()


def interrupt_at(gate: Gate) -> threading.Thread:
    """A thread that presses Ctrl-C when the get has come so far, and lets it go on a moment later."""

    def press() -> None:
        assert gate.reached.wait(WAIT)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(MOMENT)
        gate.opened.set()

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def wait_for_threads() -> None:
    """Wait until nothing brings bytes any more."""
    until = time.monotonic() + WAIT
    while any(thread.name.startswith(("pull-", "hash")) for thread in threading.enumerate()):
        assert time.monotonic() < until, "threads of the get stayed"
        time.sleep(0.01)


@pytest.mark.parametrize("transport", ["tcp", "local"])
def test_memory_can_be_unmapped_after_a_get(
    stores: tuple[P2PStore, P2PStore], source: Path, memory: mmap.mmap, transport: str
) -> None:
    giver, taker = stores
    register(giver, source)
    got = taker.get_into("n", memory, peers=[giver.control], transport=transport)
    assert memory[:] == data()
    assert (got["bytes_pulled"], got["transport"]) == (DATA_BYTES, transport)
    memory.close()


def test_memory_can_be_unmapped_after_a_copy_of_what_is_here(
    stores: tuple[P2PStore, P2PStore], source: Path, memory: mmap.mmap
) -> None:
    _, taker = stores
    register(taker, source)
    got = taker.get_into("n", memory)
    assert memory[:] == data()
    assert (got["bytes_pulled"], got["bytes_reused"]) == (0, DATA_BYTES)
    memory.close()


def test_memory_of_several_files_can_be_unmapped(stores: tuple[P2PStore, P2PStore], tmp_path: Path) -> None:
    giver, taker = stores
    write_tree(tmp_path / "tree", FILES)
    register(giver, tmp_path / "tree")
    with ExitStack() as maps:
        room = {path: maps.enter_context(mmap.mmap(-1, len(data))) for path, data in FILES.items()}
        taker.get_into("n", room, peers=[giver.control])
        assert {path: each[:] for path, each in room.items()} == FILES
        for each in room.values():
            each.close()


def test_progress_is_told(stores: tuple[P2PStore, P2PStore], source: Path, memory: mmap.mmap) -> None:
    giver, taker = stores
    register(giver, source)
    told: list[tuple[int, int]] = []
    taker.get_into("n", memory, peers=[giver.control], progress=lambda done, total: told.append((done, total)))
    assert told
    assert all(0 <= done <= total == DATA_BYTES for done, total in told)


def test_the_end_of_progress_is_told_however_soon_it_comes(
    stores: tuple[P2PStore, P2PStore], source: Path, memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pstore.pull.run.EVENT_SECONDS", 1e9)
    giver, taker = stores
    register(giver, source)
    told: list[tuple[int, int]] = []
    taker.get_into("n", memory, peers=[giver.control], progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (DATA_BYTES, DATA_BYTES)


def test_memory_can_be_unmapped_after_it_did_not_fit(
    stores: tuple[P2PStore, P2PStore], source: Path, tmp_path: Path, memory: mmap.mmap
) -> None:
    giver, taker = stores
    register(giver, source)
    small = mmap.mmap(-1, DATA_BYTES - 1)
    with open(source, "rb") as stream:
        readonly = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    for each in (small, readonly):
        with pytest.raises(UsageError) as caught:
            taker.get_into("n", each, peers=[giver.control])
        each.close()
    with pytest.raises(UsageError) as caught:
        taker.get_into("n", {"other": memory}, peers=[giver.control])
    memory.close()
    assert caught.value.__traceback__ is not None  # its frames hold nothing of it


def test_memory_can_be_unmapped_after_one_of_several_did_not_fit(
    stores: tuple[P2PStore, P2PStore], tmp_path: Path
) -> None:
    giver, taker = stores
    write_tree(tmp_path / "tree", FILES)
    register(giver, tmp_path / "tree")
    good, bad = mmap.mmap(-1, 3 * MIB), mmap.mmap(-1, MIB)
    with pytest.raises(UsageError) as caught:
        taker.get_into("n", {"a": good, "b/c": bad}, peers=[giver.control])
    good.close()
    bad.close()
    assert caught.value.__traceback__ is not None  # its frames hold nothing of it


def test_memory_can_be_unmapped_where_there_is_no_object(stores: tuple[P2PStore, P2PStore], memory: mmap.mmap) -> None:
    _, taker = stores
    with pytest.raises(ObjectNotFound) as caught:
        taker.get_into("n", memory)
    memory.close()
    assert caught.value.__traceback__ is not None  # its frames hold nothing of it


@pytest.mark.parametrize("transport", ["tcp", "local"])
def test_memory_can_be_unmapped_after_wrong_bytes(
    stores: tuple[P2PStore, P2PStore], source: Path, memory: mmap.mmap, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = Discovery.dropped

    def and_nobody_else_comes(*args: Any, **options: Any) -> None:
        monkeypatch.setattr(hope, "NO_SOURCE_SECONDS", 1)
        dropped(*args, **options)

    monkeypatch.setattr(Discovery, "dropped", and_nobody_else_comes)
    giver, taker = stores
    register(giver, source)
    giver._open().parts.watcher._on_touched = lambda _: None  # as on a failing disk: no time tells of it
    before = source.stat()
    with open(source, "r+b") as stream:
        stream.seek(3 * MIB)
        stream.write(bytes(1) if data()[3 * MIB] else b"!")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ChunkMismatch) as caught:
        taker.get_into("n", memory, peers=[giver.control], transport=transport)
    memory.close()
    assert caught.value.__traceback__ is not None  # its frames hold nothing of it


@pytest.mark.parametrize("transport", ["tcp", "local"])
def test_memory_can_be_unmapped_after_the_source_went_away(
    stores: tuple[P2PStore, P2PStore],
    source: Path,
    memory: mmap.mmap,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
) -> None:
    giver, taker = stores
    register(giver, source)
    fault: list[MooncakeError] = []

    def get() -> None:
        try:
            taker.get_into("n", memory, peers=[giver.control], transport=transport)
        except MooncakeError as error:
            fault.append(error)

    getting = threading.Thread(target=get)
    getting.start()
    assert gate.reached.wait(WAIT)
    monkeypatch.setattr(hope, "NO_SOURCE_SECONDS", 1.0)  # from now on: that it has a source may take longer
    giver.close()
    gate.opened.set()
    getting.join(2 * WAIT)
    assert isinstance(fault[0], NoLivePeer)
    memory.close()


@pytest.mark.parametrize("way", ["tcp", "local", "copy"])
def test_after_ctrl_c_nothing_is_written_any_more_and_memory_can_be_unmapped(
    stores: tuple[P2PStore, P2PStore], source: Path, memory: mmap.mmap, gate: Gate, way: str
) -> None:
    """D7: threads went on writing into the caller's buffers after it had raised."""
    giver, taker = stores
    register(taker if way == "copy" else giver, source)
    pressing = interrupt_at(gate)
    with pytest.raises(KeyboardInterrupt) as caught:
        taker.get_into(
            "n",
            memory,
            peers=() if way == "copy" else [giver.control],
            transport="auto" if way == "copy" else way,
        )
    there = memory[:]
    pressing.join(WAIT)
    wait_for_threads()
    assert memory[:] == there
    memory.close()
    assert caught.value.__traceback__ is not None  # its frames hold nothing of it
