"""Calls that take long: their events, a line of JSON each, as they come; the last one is a result or an error.

A client that closes its connection cancels its call. One that nothing is heard of hears that it is still at work, and
people are told when nothing has moved for a while: a disk that hangs looks like one that is slow.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from p2pstore.errors import Interrupted, MooncakeError, to_wire
from p2pstore.pull.run import Emit

log = logging.getLogger(__name__)

EVENT_SECONDS = 0.2
"""Between progress lines."""

SLICE_BYTES = 256 * 1024
"""Of data that are handed to the socket at once: what it does not take is copied."""

QUIET_SECONDS = 5.0
"""After so long without news an empty progress line says that the call is still at work."""

FIRST_NOTE_SECONDS = 20.0
"""After so long without news people are told, and then each time that it has taken twice as long."""

Work = Callable[[Emit], Awaitable[dict[str, Any]]]


class LongCalls:
    """Those of one agent that are under way."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Future[dict[str, Any]]] = set()

    def cancel(self) -> None:
        """End them all; each client is told so."""
        for call in self._calls:
            call.cancel()

    async def answer(self, request: web.Request, work: Work, *, waits: bool = False) -> web.StreamResponse:
        """Run ``work``, and send its events, a line each, as they come; its result or its error last.

        Nobody is told that nothing moves where it just ``waits``.
        """
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        task = asyncio.ensure_future(work(events.put_nowait))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        last: dict[str, Any] = {"event": "progress", "done": 0, "total": 0, "peers": 0}
        loop = asyncio.get_running_loop()
        moved, tell_after = loop.time(), FIRST_NOTE_SECONDS
        try:
            while not task.done() or not events.empty():
                getter = asyncio.ensure_future(events.get())
                try:
                    await asyncio.wait({getter, task}, timeout=QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    came = getter.done() or not getter.cancel()
                event = getter.result() if came else last
                if event != last:
                    moved, tell_after = loop.time(), FIRST_NOTE_SECONDS
                    last = event if event["event"] == "progress" else last
                if came or not task.done():
                    await _line(response, event)
                still = loop.time() - moved
                if still >= tell_after and not task.done() and not waits:
                    tell_after = 2 * still
                    text = f"nothing has moved for {still:.0f} s: a disk or a server may hang; Ctrl-C ends the command"
                    await _line(response, {"event": "note", "text": text})
            await _line(response, _outcome(task))
        except ConnectionResetError:
            log.info("the client went away; its call is cancelled")
        finally:
            task.cancel()
            (ending,) = await asyncio.gather(task, return_exceptions=True)
            # An ending of ours was told to the client, unless that went away; a defect must be seen in any case.
            if isinstance(ending, Exception) and not isinstance(ending, MooncakeError):
                log.error("a call failed", exc_info=ending)
        return response


def _outcome(task: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
    error = Interrupted(detail="the agent is ending") if task.cancelled() else task.exception()
    if error is None:
        return {"event": "result", **task.result()}
    if not isinstance(error, MooncakeError):
        error = MooncakeError(detail=repr(error))  # it is in the log
    return {"event": "error", "error": to_wire(error)}


async def _line(response: web.StreamResponse, value: dict[str, Any]) -> None:
    if value["event"] == "data":
        data = value["data"]
        await _line(response, {"event": "bytes", "length": len(data)})
        for at in range(0, len(data), SLICE_BYTES):
            await response.write(data[at : at + SLICE_BYTES])
        value["sent"].set()
        return
    await response.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")


class Progress:
    """Turns many small steps, from any thread, into a few progress events."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._next = 0.0

    def set(self, done: int, total: int) -> None:
        """So many bytes of so many are done."""
        now = self._loop.time()
        if now >= self._next:
            self._next = now + EVENT_SECONDS
            event = {"event": "progress", "done": done, "total": total, "peers": 0}
            self._loop.call_soon_threadsafe(self._emit, event)

    def note(self, text: str) -> None:
        """A sentence for people."""
        self._loop.call_soon_threadsafe(self._emit, {"event": "note", "text": text})
