"""An engine's KV events, as they come over ZeroMQ, without gaps.

Each message has a number. Where one is missing, and an engine's replay endpoint has it still, it is asked for; where it
has not, or the numbers begin anew, nobody knows what the engine holds: it is taken to hold nothing, and what it says
from then on is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

from engine.net.within import within
from p2pstore.errors import PackageMissing, UsageError
from p2pstore.serving.knowledge.vllm_events import BadEvents, Cleared, EngineEvent, decode

REPLAY_SECONDS = 5.0
"""For the next message of a replay."""

MAX_REPLAYED = 100_000
"""Messages of one replay."""

NUMBER_BYTES = 8
"""Of a message's number, the most significant first."""

END = (-1).to_bytes(NUMBER_BYTES, "big", signed=True)
"""The number of what ends a replay."""

MAX_WAITING = 100_000
"""Messages that wait to be read; more are dropped by ZeroMQ, and found missing."""

log = logging.getLogger(__name__)


class Feed:
    """Reads one engine's events and hands them on in order."""

    def __init__(
        self,
        endpoint: str,
        told: Callable[[list[EngineEvent]], None],
        *,
        replay: str | None = None,
        topic: str = "",
    ) -> None:
        """``endpoint`` and ``replay`` are as vLLM's ``--kv-events-config`` has them, with a host in place of ``*``.

        Raises ``UsageError`` where the extra ``events`` is not installed.
        """
        self.missed = 0
        """Messages that nobody had any more."""
        self.bad = 0
        """Messages that made no sense."""
        self._endpoint, self._replay, self._topic = endpoint, replay, topic
        self._told = told
        self._next: int | None = None
        self._zmq = _zmq()

    async def run(self) -> None:
        """Until it is cancelled. Raises ``UsageError`` for an endpoint that is none."""
        zmq = self._zmq
        with contextlib.ExitStack() as owned:
            context = zmq.asyncio.Context()
            owned.callback(context.destroy, linger=0)
            socket = context.socket(zmq.SUB)
            socket.set_hwm(MAX_WAITING)
            socket.setsockopt_string(zmq.SUBSCRIBE, self._topic)
            _connect(zmq, socket, self._endpoint)
            while True:
                frames = await socket.recv_multipart()
                if len(frames) != 3 or len(frames[1]) != NUMBER_BYTES:
                    self._is_bad(f"{len(frames)} frames")
                    continue
                await self._came(context, int.from_bytes(frames[1], "big"), frames[2])

    async def _came(self, context: Any, number: int, payload: bytes) -> None:
        wanted = self._next
        if wanted is None:
            # The engine was there before: what it has said already is in its replay.
            await self._fill(context, 0, number)
        elif number > wanted and not await self._fill(context, wanted, number):
            self.missed += number - (self._next or wanted)
            log.warning("%s: events were missed, and what the engine holds is not known", self._endpoint)
            self._told([Cleared()])
        elif number < wanted:
            log.warning("%s: the engine began anew", self._endpoint)
            self._told([Cleared()])
            await self._fill(context, 0, number)
        self._next = number + 1
        self._hand_on(payload)

    async def _fill(self, context: Any, first: int, last: int) -> bool:
        """Ask for the messages from ``first`` on, before ``last``; whether all came."""
        if first >= last:
            return True
        if self._replay is None:
            return False
        self._next = first
        async with contextlib.aclosing(self._replayed(context, first)) as replayed:
            async for number, payload in replayed:
                if number >= last:
                    break
                if number != self._next:
                    return False
                self._hand_on(payload)
                self._next = number + 1
        return self._next == last

    async def _replayed(self, context: Any, first: int) -> AsyncGenerator[tuple[int, bytes], None]:
        zmq = self._zmq
        # A DEALER that writes a REQ's empty frame: a REQ takes one answer, and there are many.
        with contextlib.closing(context.socket(zmq.DEALER)) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            _connect(zmq, socket, str(self._replay))
            await socket.send_multipart([b"", first.to_bytes(NUMBER_BYTES, "big")])
            for _ in range(MAX_REPLAYED):
                try:
                    frames = await within(socket.recv_multipart(), REPLAY_SECONDS)
                except asyncio.TimeoutError:
                    log.warning("%s: no replay within %g s", self._replay, REPLAY_SECONDS)
                    return
                if len(frames) < 3 or len(frames[-2]) != NUMBER_BYTES:
                    self._is_bad(f"a replay of {len(frames)} frames")
                    return
                if frames[-2] == END:
                    return
                yield int.from_bytes(frames[-2], "big"), frames[-1]

    def _hand_on(self, payload: bytes) -> None:
        try:
            events = decode(payload)
        except BadEvents as error:
            self._is_bad(str(error))
            # It may have said that something is gone.
            events = [Cleared()]
        self._told(events)

    def _is_bad(self, detail: str) -> None:
        self.bad += 1
        if not self.bad & (self.bad - 1):
            log.warning("%s: %d messages that are no KV events, the last: %s", self._endpoint, self.bad, detail)


def _connect(zmq: Any, socket: Any, endpoint: str) -> None:
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        detail = f"{endpoint!r} is no endpoint of ZeroMQ's, such as tcp://10.0.0.7:5557: {error}"
        raise UsageError(detail=detail) from None


def _zmq() -> Any:
    try:
        import msgpack  # noqa: F401, PLC0415 - an extra, without which there is nothing to read
        import zmq  # noqa: PLC0415 - an extra
        import zmq.asyncio  # noqa: PLC0415 - an extra
    except ImportError:
        package, install = "pyzmq and msgpack", "mooncake-cli[events]"
        raise PackageMissing(what="a reader of KV events", package=package, install=install) from None
    return zmq
