"""A connection of a client: bytes in, calls carried out in order, all answers of what came at once in one write."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from typing import Any, Protocol, cast

from engine.errors import RemoteProtocolError
from engine.net import addresses
from engine.rpc import framing
from engine.rpc.calls import Call, call_key, only_call, read_call, write_refusal
from engine.rpc.codes import Code
from engine.rpc.compiled import MALFORMED, Codec
from engine.rpc.framing import Request, Splitter
from p2pstore.kv.master.callers import Callers
from p2pstore.kv.master.dispatch import Route, counted
from p2pstore.kv.master.generations import Generations
from p2pstore.kv.master.limits import MAX_CLIENTS, MAX_UNSENT_BYTES

log = logging.getLogger(__name__)

FLUSH_BYTES = 256 << 10
"""Answers are written once they are so many."""


class Owner(Protocol):
    """What a connection needs of the master that it belongs to."""

    callers: Callers
    generations: Generations
    routes: dict[int, Route]
    stuck: set[Connection]

    def now(self) -> float:
        """The time, seconds that never go back."""

    @property
    def journal(self) -> object | None:
        """Where changes are kept, if anywhere."""

    def opened(self, connection: Connection, /) -> None:
        """A connection came."""

    def closed(self, connection: Connection, /) -> None:
        """A connection went."""

    def connected(self, client: bytes, connection: Connection, /) -> None:
        """A client calls over a connection."""

    def keeps(self, connection: Connection, kept: int, /, *, fresh: bool = False) -> None:
        """So much of a frame is there."""

    def told(self, host: str, what: str, level: int, text: str, /) -> None:
        """Say something of a host once."""

    def failed(self, call: str, error: Exception, /) -> None:
        """A call met a defect of ours."""

    def carry_out(self, connection: Connection, sequence: int, route: Route, args: tuple[Any, ...], /) -> Any:
        """The result of a call; None if it comes later."""


class Connection(asyncio.Protocol):
    """One connection. It is all on the event loop, and never waits."""

    def __init__(self, master: Owner) -> None:
        self._master = master
        self._routes = master.routes
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        """Its socket, as long as it is certain to be that."""
        self._behind = False
        """Whether the loop may have something of ours that is still to be sent."""
        self._queue: deque[Request] = deque()
        self.stuck_since: float | None = None
        """Since when the client leaves answers unread."""
        self.partial_since: float | None = None
        """Since when a frame has been on its way."""
        self.kept = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there; or somebody whom nobody allowed."""
        peer = transport.get_extra_info("peername") or ("?", 0)
        self._transport = made = cast("asyncio.Transport", transport)  # uvloop's is one, and no subclass
        made.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        sock = transport.get_extra_info("socket")
        self._fd = -1 if sock is None else sock.fileno()
        self.host = str(peer[0]).removeprefix("::ffff:")
        self.address = addresses.join(self.host, peer[1])
        self._splitter = Splitter(peer=self.address)
        self.caller = self._master.callers.came(self.address)
        self.speaker = self._master.generations.opened(self.host, self._master.now())
        self._master.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it went is of no use
        """It is gone: what waited on it needs no answer."""
        self._transport = None
        self._fd = -1
        self._queue.clear()
        self._master.generations.closed(self.speaker, self._master.now())
        self._master.callers.went(self.caller, self.speaker.active)
        self._master.closed(self)

    def close(self, *, now: bool = False) -> None:
        """End it: after what is to be sent, or at once."""
        self._fd = -1
        if self._transport is not None:
            self._transport.abort() if now else self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Some calls, or pieces of them."""
        master = self._master
        speaker = self.speaker
        speaker.active = master.now()
        if speaker.tried:
            master.generations.again(speaker)
        if not self.kept and not self._queue and self.stuck_since is None:
            sequence, key = only_call(data)
            route = self._routes.get(key)
            if route is not None:
                frame = self._served(sequence, route, data, framing.HEAD)
                if frame:
                    self.answer(frame)
                return
        try:
            requests = self._splitter.requests(data)
        except RemoteProtocolError as error:
            self.caller.malformed += 1
            master.told(self.host, "frame", logging.WARNING, f"{error}; the connection is closed")
            self._queue.clear()
            self.close()
            return
        kept = self._splitter.kept
        if kept or self.kept:
            master.keeps(self, kept, fresh=bool(requests))
        if self._queue or self.stuck_since is not None:
            self._queue.extend(requests)
        else:
            self._serve(requests)

    def pause_writing(self) -> None:
        """The client does not read: nothing more is read from it, and its calls wait."""
        self.stuck_since = self._master.now()
        if self._transport is not None:
            self._transport.pause_reading()
        self._master.stuck.add(self)

    def resume_writing(self) -> None:
        """It reads again."""
        self.stuck_since = None
        self._master.stuck.discard(self)
        waiting = list(self._queue)
        self._queue.clear()
        self._serve(waiting)
        if self._transport is not None and self.stuck_since is None:
            self._transport.resume_reading()

    def answer(self, frame: bytes) -> None:
        """Send a frame, at once if nothing waits to be sent: the loop's queue would take a tenth of a call's time."""
        transport = self._transport
        if transport is None:
            return
        self._behind = self._behind and transport.get_write_buffer_size() > 0
        if self._fd >= 0 and not self._behind:
            try:
                sent = os.write(self._fd, frame)
            except OSError:  # it is full, or broken: the loop finds out which
                sent = 0
            if sent == len(frame):
                return
            frame = frame[sent:]
            self._behind = True
        transport.write(frame)

    def answer_parts(self, parts: list[bytes]) -> None:
        """Send a frame that is in pieces."""
        if self._transport is not None:
            self._behind = True
            self._transport.writelines(parts)

    def _serve(self, requests: list[Request]) -> None:
        parts: list[bytes] = []
        size = 0
        for place, request in enumerate(requests):
            frame = self._one(request)
            if frame:
                parts.append(frame)
                size += len(frame)
                if size > FLUSH_BYTES:
                    self.answer(b"".join(parts))
                    parts, size = [], 0
                    if self.stuck_since is not None:
                        self._queue.extend(requests[place + 1 :])
                        return
        if parts:
            self.answer(parts[0] if len(parts) == 1 else b"".join(parts))

    def _one(self, request: Request) -> bytes:
        """The frame that answers a call; empty if it is answered later."""
        sequence, function, body = request
        route = self._routes.get(call_key(function, body))
        if route is not None:
            return self._served(sequence, route, body, 0)
        self.caller.calls += 1
        return self._strange(request)

    def _served(self, sequence: int, route: Route, data: bytes, at: int) -> bytes:
        """The same, where it is known what is asked; the arguments begin ``at`` in ``data``."""
        caller = self.caller
        caller.calls += 1
        try:
            args = route.codec.read(data, at) if route.codec is not None else ()
        except MALFORMED:
            return self._strange(Request(sequence, route.form.method.function, data[at:]))
        form = route.form
        if form not in self.speaker.seen:
            self._master.generations.heard(self.speaker, form, args)
            caller.generation = self._master.generations.likely(self.speaker, form)
        if route.client >= 0 and args[route.client] not in caller.clients:
            self._named(args[route.client])
        counts = route.counts
        counts[0] += 1
        try:
            if route.plain and self._master.journal is None:
                result = route.handler(*args)
            else:
                result = self._master.carry_out(self, sequence, route, args)
            if result is None:
                return b""
            if route.many or type(result) is Code:
                self.count(route, args, result)
            elif route.looks_up:
                caller.lookups += 1
                caller.found += result is not False
                if args[route.tenant] not in caller.tenants:
                    caller.of_tenant(args[route.tenant])
            return self.codec(route).answer(sequence, result)
        except Exception as error:  # noqa: BLE001 - a defect of ours is one call's, and not the connection's end
            counts[1] += 1
            caller.turned_away["defect"] += 1
            self._master.failed(route.name, error)
            return write_refusal(sequence, framing.FAILED, "the master failed; its log says how")

    def codec(self, route: Route) -> Codec:
        """Of the answer to a call, in the form of this client's generation."""
        if route.answer is not None:
            return route.answer
        possible = self.speaker.possible
        known = route.answers.get(possible[0]) if len(possible) == 1 else None  # as after a client's first put
        return known or route.answers[self._master.generations.guess(self.speaker, route.form)]

    def count(self, route: Route, args: tuple[Any, ...], result: Any) -> None:
        """What a result says of this caller, and of this call."""
        caller = self.caller
        if route.many:
            items, failed = len(result), counted(route.counts, result)
            for code in failed:
                caller.failures[code] += 1
            found = result.count(True) if route.says_whether else items - len(failed)
        else:
            items = 1
            found = bool(result)
            if type(result) is Code and result:
                found = False
                route.counts[1] += 1
                caller.failures[result] += 1
        if route.looks_up:
            caller.lookups += items
            caller.found += found
            tenant = args[route.tenant]
            if tenant not in caller.tenants:
                caller.of_tenant(tenant)

    def _named(self, client: bytes) -> None:
        """A client says who it is."""
        if len(self.caller.clients) < MAX_CLIENTS:
            self.caller.clients.add(client)
            self._master.connected(client, self)

    def _strange(self, request: Request) -> bytes:
        """Refuse what is no call of ours, or not as long as it says."""
        try:
            call = read_call(request, self.address)
        except RemoteProtocolError as error:
            self.caller.malformed += 1
            self._master.told(self.host, "call", logging.WARNING, f"{error}; it is refused")
            return write_refusal(request.sequence, framing.BAD_ARGUMENTS, str(error))
        if isinstance(call, Call):
            detail = f"this master does not carry out {call.form.method.name}"
            return write_refusal(request.sequence, framing.NO_FUNCTION, detail)
        if self.caller.did_not_know(call.name):
            speaks = self.caller.generation or "a release that is not known yet"
            text = (
                f"{self.address}, a client of {speaks}, calls {call.words}, which no release known here does; refused"
            )
            self._master.told(self.host, call.name, logging.WARNING, text)
        return write_refusal(call.sequence, framing.NO_FUNCTION, f"this master does not know {call.words}")
