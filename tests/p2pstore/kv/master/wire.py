"""A master on the loopback, and clients that speak its wire and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from engine.net import addresses
from engine.rpc.calls import read_answer, write_call
from engine.rpc.framing import Answer, Splitter
from engine.rpc.messages import ObjectMeta, ReplicateConfig, Segment
from engine.rpc.methods import NEWEST
from p2pstore.kv.master.server import Master, MasterSettings
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.settings import PoolSettings

SECONDS = 60.0
"""Longer than anything here takes on a slow day."""

BASE = 1 << 32
MIB = 1 << 20


_open: list[Client] = []
"""Connections to the masters that run; they are closed with them."""


class Client:
    """One connection, as a client of some generation."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, generation: str = NEWEST) -> None:
        self.reader = reader
        self.writer = writer
        self.generation = generation
        self._splitter = Splitter(peer="master", answers=True)
        self._answers: dict[int, Answer] = {}
        self._sequence = 0

    @classmethod
    async def to(cls, master: Master, generation: str = NEWEST) -> Client:
        client = cls(*await asyncio.open_connection(*addresses.parse(master.address)), generation)
        _open.append(client)
        return client

    async def __call__(self, method: str, *args: Any) -> Any:
        return await self.answer(self.ask(method, *args), method)

    def ask(self, method: str, *args: Any) -> int:
        self._sequence += 1
        self.writer.write(write_call(self._sequence, self.generation, method, args))
        return self._sequence

    async def answer(self, sequence: int, method: str) -> Any:
        return read_answer(await self.frame(sequence), self.generation, method, "master")

    async def frame(self, sequence: int) -> Answer:
        while sequence not in self._answers:
            data = await asyncio.wait_for(self.reader.read(1 << 16), SECONDS)
            if not data:
                raise ConnectionError("the master closed the connection")
            self._answers |= {each.sequence: each for each in self._splitter.answers(data)}
        return self._answers.pop(sequence)

    async def ended(self) -> None:
        """Wait until the master closes the connection."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(self.reader.read(1 << 16), SECONDS):
                pass

    async def mount(self, client: bytes, size: int = 64 * MIB, number: int = 1) -> bytes:
        segment = Segment(number.to_bytes(16, "big"), f"s{number}", BASE * number, size, f"h{number}:1")
        assert await self("MountSegment", segment, client) == 0
        return segment.id

    async def put(self, client: bytes, key: str, size: int = 10, config: ReplicateConfig | None = None) -> Any:
        """Start and end it; returns where it is."""
        places = await self("PutStart", client, key, size, config or ReplicateConfig(), "default")
        assert isinstance(places, list), places
        assert await self("PutEnd", client, ObjectMeta(key), 4, "default") == 0
        return places

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def running(
    journal: Any = None,
    allow: tuple[Any, ...] = (),
    clock: Callable[[], float] = time.monotonic,
    **settings: Any,
) -> AsyncIterator[Master]:
    """A master of a pool with these settings, on a free port; the pool's time is ``clock``'s."""
    master = Master(MasterSettings(port=0, allow=allow), Pool(PoolSettings(**settings), clock), journal)
    await master.start()
    try:
        yield master
    finally:
        while _open:
            await _open.pop().close()
        await master.stop()


async def until(condition: Any) -> None:
    """Wait for what the master does on its own."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
