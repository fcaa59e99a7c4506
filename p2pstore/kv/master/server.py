"""The master: listens for clients of every generation, and does for the pool what concerns time and files."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Protocol, TypeVar

from engine.net import addresses, listening, sockets
from engine.net.making import accept_no_more
from engine.rpc import framing
from engine.rpc.calls import write_refusal
from engine.rpc.codes import Code
from p2pstore.errors import MooncakeError, NodeEnded
from p2pstore.kv.master.callers import Callers
from p2pstore.kv.master.connections import Connection
from p2pstore.kv.master.dispatch import Route, routes
from p2pstore.kv.master.generations import Generations
from p2pstore.kv.master.limits import (
    FRAME_S,
    MAX_CONNECTIONS,
    MAX_KEPT_BYTES,
    STOP_S,
    SWEEP_S,
    UNSENT_S,
)
from p2pstore.kv.master.long_calls import MAX_LONG, LongCall, LongCalls, answer_in_steps
from p2pstore.kv.master.waiting import TRY_S, Waiting, WaitingRoom
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.walks import Steps, after_each
from p2pstore.supervisor import Supervisor

log = logging.getLogger(__name__)

DEFAULT_PORT = 50051
"""Upstream's."""

PULSE_S = 0.05
"""How often the pool is asked what is due."""

MORE_S = 0.01
"""The same while it says that there is more to do."""

SHOWN = 80
"""Characters of a pattern that the log repeats."""

MAX_TOLD = 4096
"""Things that were said of hosts, which are not said again."""

NO_SPACE, NOT_READY = Code.NO_SPACE, Code.NOT_READY
"""To look a member of an enumeration up takes as long as to compare with it."""

T = TypeVar("T")

Network = IPv4Network | IPv6Network


class JournalLike(Protocol):
    """Where changes of the pool are kept; see ``p2pstore.kv.master.journal``."""

    refusing: str

    def append(self, records: Sequence[bytes]) -> None:
        """Keep records. Raises an error of ours."""


@dataclass(frozen=True)
class MasterSettings:
    """Where a master listens, and to whom; ``allow`` is empty where whoever can reach it may call."""

    host: str = addresses.LOOPBACK
    port: int = DEFAULT_PORT
    allow: tuple[Network, ...] = field(default=())


class Master:
    """A master on this event loop, of a pool that whoever makes it hands over."""

    def __init__(self, settings: MasterSettings, pool: Pool, journal: JournalLike | None = None) -> None:
        self.settings = settings
        self.pool = pool
        self.journal = journal
        self.callers = Callers()
        self.generations = Generations()
        self.routes, self.counts = routes(pool)
        self.address = ""
        self.started = 0.0
        self.failure: asyncio.Future[NodeEnded] | None = None
        """Done once something in it failed for good."""
        self.supervisor = Supervisor(self._on_fatal)
        self.connections: set[Connection] = set()
        self.stuck: set[Connection] = set()
        self._partial: set[Connection] = set()
        self._kept = 0
        self._clients: dict[bytes, set[Connection]] = {}
        self.waiting = WaitingRoom(time.monotonic, pool.make_room, lambda: pool.settled, self._waited)
        self.long = LongCalls(self._soon, lambda error: self.failed("long call", error))
        self._timer: asyncio.TimerHandle | None = None
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._server: asyncio.Server | None = None

    now = staticmethod(time.monotonic)

    async def start(self) -> None:
        """Listen. Raises ``UsageError`` where it cannot."""
        loop = asyncio.get_running_loop()
        sock = sockets.listen(listening.address_of(self.settings.host), self.settings.port)
        self._server = await loop.create_server(lambda: Connection(self), sock=sock)
        self.address = addresses.join(*sock.getsockname()[:2])
        self.started = self.now()
        self.failure = loop.create_future()
        self.supervisor.start("pulse", "master", self._pulse)
        self.supervisor.start("sweep", "master", self._sweep)

    async def stop(self) -> None:
        """Listen no more, let answers go out, and end. Twice is harmless."""
        if self._server is None:
            return
        await accept_no_more(self._server.sockets)
        self._server.close()
        await self.supervisor.close()
        if self._timer is not None:
            self._timer.cancel()
        self.long.close()  # else they go on after the journal was closed, which then cannot keep what they change
        for connection in list(self.connections):
            connection.close()
        deadline = self.now() + STOP_S
        while self.connections and self.now() < deadline:  # noqa: ASYNC110 - their ends are many events
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.close(now=True)
        self._server = None

    def _on_fatal(self, ended: NodeEnded) -> None:
        if self.failure is not None and not self.failure.done():
            self.failure.set_result(ended)

    # -- what connections tell

    def opened(self, connection: Connection) -> None:
        """A connection came."""
        self.connections.add(connection)
        if self.settings.allow and not self._allowed(connection.host):
            text = f"{connection.host} is not among the networks that may call this master; its connections are closed"
            self.told(connection.host, "allow", logging.WARNING, text)
            connection.caller.turned_away["not-allowed"] += 1
            connection.close(now=True)
        elif len(self.connections) > MAX_CONNECTIONS:
            still = heapq.nsmallest(
                max(1, MAX_CONNECTIONS // 100), self.connections, key=lambda each: each.speaker.active
            )
            self.told(
                "", "full", logging.ERROR, f"{MAX_CONNECTIONS} connections are open; those that are still are closed"
            )
            for each in still:
                each.caller.turned_away["too-many"] += 1
                each.close(now=True)

    def closed(self, connection: Connection) -> None:
        """A connection went."""
        self.connections.discard(connection)
        self.stuck.discard(connection)
        self.keeps(connection, 0)
        self.waiting.left(connection)
        for client in connection.caller.clients:
            others = self._clients.get(client)
            if others is not None:
                others.discard(connection)
                if not others:
                    del self._clients[client]
                    self.pool.lost(client)

    def connected(self, client: bytes, connection: Connection) -> None:
        """A client calls over a connection."""
        self._clients.setdefault(client, set()).add(connection)

    def keeps(self, connection: Connection, kept: int, *, fresh: bool = False) -> None:
        """So much of a frame of a connection's is there; ``fresh``: it began just now."""
        self._kept += kept - connection.kept
        connection.kept = kept
        if not kept:
            connection.partial_since = None
            self._partial.discard(connection)
            return
        if fresh or connection.partial_since is None:
            connection.partial_since = self.now()
            self._partial.add(connection)
        if self._kept > MAX_KEPT_BYTES:
            largest = max(self._partial, key=lambda each: each.kept)
            self.told(
                "",
                "kept",
                logging.ERROR,
                f"frames that are not whole take {self._kept} bytes; {largest.address} is closed",
            )
            largest.caller.turned_away["large-calls"] += 1
            largest.close(now=True)
            self.keeps(largest, 0)

    def told(self, host: str, what: str, level: int, text: str) -> None:
        """Say something of a host once."""
        if (host, what) in self._told:
            return
        self._told[host, what] = None
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
        log.log(level, "%s", text)

    def failed(self, call: str, error: Exception) -> None:
        """A call met a defect of ours."""
        self.supervisor.note(call, "master", error)

    def _allowed(self, host: str) -> bool:
        ip = addresses.as_ip(host)
        return any(ip in network for network in self.settings.allow)

    # -- calls

    def carry_out(self, connection: Connection, sequence: int, route: Route, args: tuple[Any, ...]) -> Any:
        """The result of a call; None if it comes later."""
        if route.plain:
            result = route.handler(*args)
            return result if self.journal is None else self._kept_result(route, result)
        if route.long:
            return self._carry_out_long(connection, sequence, route, args)
        if self.journal is not None and self.journal.refusing:
            return _refused(route, args[1])
        if route.many:
            sizes = args[2]
            result = [NO_SPACE] * len(sizes) if self.pool.make_room(sizes) else route.handler(*args)
            waits = Code in set(map(type, result)) and (NOT_READY in result or NO_SPACE in result)
        else:
            result = NO_SPACE if self.pool.make_room((args[2],)) else route.handler(*args)
            waits = result is NO_SPACE or result is NOT_READY
        if waits:
            call = Waiting(connection, sequence, route, args, result if route.many else [result])
            if self.waiting.takes(call):
                self._come_again(0.0)
                return None
            result = call.result
        return result if self.journal is None else self._kept_result(route, result)

    def _carry_out_long(self, connection: Connection, sequence: int, route: Route, args: tuple[Any, ...]) -> None:
        if self.long.full:
            connection.caller.turned_away["crowded"] += 1
            text = f"{MAX_LONG} calls that go through all keys are under way; ask again later"
            connection.answer(write_refusal(sequence, framing.FAILED, text))
            return
        refusal = write_refusal(sequence, framing.FAILED, "the master failed; its log says how")

        def steps() -> Steps[list[bytes]]:
            result = yield from self.kept_steps(route.handler(*args))
            result = self._kept_result(route, result)
            connection.count(route, args, result)
            if route.name.endswith("Regex") and result is Code.BAD_PARAMS:
                why = f"{args[0][:SHOWN]!r} is no pattern, or a slow one"
                why += "" if route.name.startswith("Remove") else ", or finds more than one answer holds"
                text = f"{route.name} of {connection.address} is refused: {why}"
                self.told(connection.host, route.name, logging.WARNING, text)
            return (yield from answer_in_steps(sequence, connection.codec(route), result))

        self.long.begin(LongCall(steps(), connection.answer_parts, refusal))

    def kept_steps(self, steps: Steps[T]) -> Steps[T]:
        """The same, and what changes is kept after each."""
        return after_each(steps, self.keep_log)

    def _kept_result(self, route: Route, result: Any) -> Any:
        """The result, once what the call changed was kept."""
        if self.journal is None or self.keep_log():
            return result
        return _refused(route, result)

    def keep_log(self) -> bool:
        """Keep the pool's changes; tells whether they are."""
        records = self.pool.take_log()
        if records and self.journal is not None:
            try:
                self.journal.append(records)
            except MooncakeError as error:
                self.supervisor.note("journal", "master", error)
                return False
        return True

    def _soon(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(call)

    def _come_again(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        try:
            again = self.waiting.try_again()
        except Exception as error:  # noqa: BLE001 - the others go on waiting; each has its end
            self.failed("put that waits", error)
            again = TRY_S
        if again is not None:
            self._come_again(again)

    def _waited(self, call: Waiting) -> None:
        """The waiting of a call is over, however it ended."""
        connection: Connection = call.to
        result = self._kept_result(call.route, call.result)
        connection.count(call.route, call.args, result)
        connection.answer(connection.codec(call.route).answer(call.sequence, result))

    # -- time

    async def _pulse(self) -> None:
        while True:
            more = self.pool.tick()
            if self.journal is not None:
                self.keep_log()
            await asyncio.sleep(MORE_S if more else PULSE_S)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self.now()
            for connection in list(self._partial):
                if connection.partial_since is not None and now - connection.partial_since > FRAME_S:
                    self._end(connection, "slow-call", f"a frame has not come whole in {FRAME_S:g} s")
            for connection in list(self.stuck):
                if connection.stuck_since is not None and now - connection.stuck_since > UNSENT_S:
                    self._end(connection, "unread", f"it has not read its answers for {UNSENT_S:g} s")

    def _end(self, connection: Connection, what: str, why: str) -> None:
        connection.caller.turned_away[what] += 1
        self.told(connection.host, what, logging.WARNING, f"{connection.address}: {why}; the connection is closed")
        connection.close(now=True)


def _refused(route: Route, result: Any) -> Any:
    """What a call is answered with whose changes could not be kept; a count has no such form and stays."""
    if route.many:
        return [Code.PERSIST_FAILED] * len(result)
    return result if type(result) is int else Code.PERSIST_FAILED
