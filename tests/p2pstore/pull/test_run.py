"""A pull at work in a node: what it does to the event loop and to its destination when it ends early."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from engine.files.system import system
from p2pstore.errors import DestinationBusy
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.pull import discovery
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.get import GetRequest
from tests.p2pstore.samples import MIB, content, manifest_of

DATA = content(4 * MIB, 5)
WAIT = 60.0


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Node]]:
    """Two nodes that hold an object of one file, named "n", and one that does not."""
    server = MemoryServer()
    source = tmp_path / "source"
    source.write_bytes(DATA)
    async with AsyncExitStack() as stack:
        made = []
        for name in ("holder", "other", "getter"):
            node = await Node.start(NodeOptions(name), MemoryStore(server))
            stack.push_async_callback(node.close)
            made.append(node)
        for node in made[:2]:
            await node.register(source, "n", hash_name="xxh3_128", chunk_size=MIB)
        yield made


class HangingWrites:
    """``pwrite`` hangs in the threads that pull from ``source`` (from any, if empty), until it is told to go on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.source = ""
        self.go_on = threading.Event()
        self.hanging = threading.Event()
        self._pwrite = os.pwrite
        patch.setattr(system, "pwrite", self._write)

    def _write(self, descriptor: int, data: Any, at: int) -> int:
        if threading.current_thread().name.startswith(f"pull-{self.source}"):
            self.hanging.set()
            self.go_on.wait()
        return self._pwrite(descriptor, data, at)


@pytest.fixture
def writes(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingWrites]:
    made = HangingWrites(monkeypatch)
    yield made
    made.go_on.set()


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what nothing tells of."""

    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), WAIT)


def locked(dest: Path) -> bool:
    """Whether a get still has the destination."""
    try:
        FileDestination(dest, manifest_of({"": DATA}, MIB), "n").abort()
    except DestinationBusy:
        return True
    return False


async def test_a_second_cancel_does_not_unlock_a_destination_that_is_written_to(
    nodes: list[Node], writes: HangingWrites, tmp_path: Path
) -> None:
    """D14: it did, and another get of it could verify a chunk that the late write then went over."""
    dest = tmp_path / "dest"
    work = asyncio.create_task(nodes[-1].get(GetRequest("n", dest, transport="tcp"), lambda _: None))
    await eventually(writes.hanging.is_set)
    for _ in range(2):
        work.cancel()
        await asyncio.wait({work}, timeout=0.5)
    assert locked(dest)
    writes.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(work, WAIT)
    await eventually(lambda: not locked(dest))


async def test_a_cancelled_get_ends_for_its_user_while_a_write_hangs(
    nodes: list[Node], writes: HangingWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4: it ends within a bound, which is not waited for on the loop, and its destination stays locked."""
    abort = FileDestination.abort
    waited_in: list[threading.Thread] = []

    def soon(destination: FileDestination, timeout: float = 1.0) -> bool:
        waited_in.append(threading.current_thread())
        return abort(destination, min(timeout, 0.1))

    monkeypatch.setattr(FileDestination, "abort", soon)
    dest = tmp_path / "dest"
    work = asyncio.create_task(nodes[-1].get(GetRequest("n", dest, transport="tcp"), lambda _: None))
    await eventually(writes.hanging.is_set)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(work, WAIT)
    assert threading.current_thread() not in waited_in
    assert locked(dest)
    writes.go_on.set()
    await eventually(lambda: not locked(dest))


async def test_a_source_is_withdrawn_while_a_write_hangs_and_the_get_goes_on(
    nodes: list[Node], writes: HangingWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4: the event loop waited for the write, for seconds, and then the get failed."""
    removed: list[str] = []
    remove = discovery.Pull.remove

    def note(pull: discovery.Pull, node: str) -> None:
        remove(pull, node)
        removed.append(node)

    monkeypatch.setattr(discovery.Pull, "remove", note)
    writes.source = "holder"
    dest = tmp_path / "dest"
    holder, _, getter = nodes
    work = asyncio.create_task(getter.get(GetRequest("n", dest, transport="tcp"), lambda _: None))
    await eventually(writes.hanging.is_set)
    await holder.unregister("n")
    await eventually(lambda: "holder" in removed)
    assert not work.done()
    writes.go_on.set()
    result = await asyncio.wait_for(work, WAIT)
    assert dest.read_bytes() == DATA
    assert result.bytes_pulled == len(DATA)
