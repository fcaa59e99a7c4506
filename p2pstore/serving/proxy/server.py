"""The proxy's HTTP server.

::

    POST /v1/completions  /v1/chat/completions      as OpenAI's API has them
    GET  /v1/models                                 of an instance
    GET  /health  /healthcheck                      200 where requests can be served, else 503
    GET  /status                                    the instances, and what becomes of them
    GET  /metrics                                   for Prometheus
    POST /instances/add     {"type": "prefill"|"decode", "instance": "host:port", "bootstrap": port,
                             "kv_events": endpoint, "kv_replay": endpoint}
    POST /instances/remove  {"type": ..., "instance": "host:port"}    once what it has is done

The last two take the header ``X-API-Key``. Errors are OpenAI's. Source of the surface: upstream's ``proxy_demo.py`` and
vLLM's ``disagg_proxy_demo.py`` and ``mooncake_connector_proxy.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from engine.net.http_server import HttpServer, let_in
from engine.net.within import within
from p2pstore.errors import NodeEnded
from p2pstore.serving.events import Kind
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import Policy
from p2pstore.serving.proxy import failures
from p2pstore.serving.proxy.admin import Admin
from p2pstore.serving.proxy.bodies import Bodies, Refused, response
from p2pstore.serving.proxy.copies import Copies
from p2pstore.serving.proxy.dispatch import Dispatcher
from p2pstore.serving.proxy.exchange import Exchange
from p2pstore.serving.proxy.failures import Answer
from p2pstore.serving.proxy.fleet import Fleet
from p2pstore.serving.proxy.keeper import OWNER, Keeper
from p2pstore.serving.proxy.knowing import Knowing
from p2pstore.serving.proxy.options import SWEEP_SECONDS, Options
from p2pstore.serving.proxy.parts import Parts
from p2pstore.serving.proxy.requests import CHAT, COMPLETIONS, MAX_BODY_BYTES, Asked, BadRequest, parse
from p2pstore.serving.proxy.stats import Stats
from p2pstore.serving.proxy.turns import Turn, Turns
from p2pstore.serving.proxy.upstream import InstanceFailed, Upstream
from p2pstore.supervisor import Supervisor

log = logging.getLogger(__name__)

MAX_STRANGERS = 4096
"""Connections without a request: clients come in crowds."""

MODELS = "/v1/models"

FOR_PAGES = ("/v1/", "/health")
"""What a reverse proxy before this one asks for by its own name, and pages may ask for, as of vLLM's own server."""

SHUTDOWN_SECONDS = 2.0
"""For connections to end, once no request is under way."""

CLIENT_LEFT = 499
"""The status that is counted for a client that left."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ProxyServer:
    """A proxy from ``start`` to ``close``, in one event loop."""

    def __init__(
        self,
        options: Options,
        on_fatal: Callable[[NodeEnded], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_fatal`` is told when a part that it cannot be without does not work."""
        self.options = options
        self.supervisor = Supervisor(on_fatal)
        self.stats = Stats()
        self.turns = Turns(options.running, options.waiting, options.wait_seconds)
        self._clock = clock
        self._began = clock()
        self._keys = options.policy.placement in {Placement.PREFIX_LOCAL, Placement.KVCACHE_CENTRIC}
        """Whether anybody asks for prefixes."""
        self._exchanges: set[Exchange] = set()
        self._waiting: dict[object, asyncio.Future[bool]] = {}
        self.bodies = Bodies(options.body_seconds)
        self._idle = asyncio.Event()
        self._ending = False
        self._parts: Parts | None = None
        self._admin: Admin | None = None
        self._server: HttpServer | None = None

    @property
    def parts(self) -> Parts:
        """What it is made of, once it was started."""
        assert self._parts is not None  # noqa: S101 - see above
        return self._parts

    @property
    def fleet(self) -> Fleet:
        """Its instances."""
        return self.parts.keeper.fleet

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening socket, and begin to probe the instances. Raises ``BadInstance``."""
        options = self.options
        dispatcher = Dispatcher(Policy(options.policy), self._clock, p2p=options.p2p)
        upstream = Upstream(options)
        knowing = Knowing(dispatcher, upstream, self.supervisor, options.policy.block_tokens)
        keeper = Keeper(options, dispatcher, upstream, knowing, self.supervisor, self._clock)
        self._parts = Parts(options, dispatcher, keeper, upstream, knowing, self.stats, self._clock)
        Copies(options, dispatcher, upstream, keeper, self.stats, self.supervisor)
        if options.pool is not None:
            knowing.listen_to_pool(options.pool)
        for kind, places in ((Kind.PREFILL, options.prefill), (Kind.DECODE, options.decode)):
            for place in places:
                keeper.add(place, kind)
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        app.router.add_post(COMPLETIONS, self._completions)
        app.router.add_post(CHAT, self._completions)
        app.router.add_get(MODELS, self._models)
        self._admin = Admin(self._parts, self.turns, self.bodies, self.supervisor)
        self._admin.add_to(app)
        self._server = HttpServer(
            app,
            logger=log,
            shutdown_seconds=SHUTDOWN_SECONDS,
            cancels=True,
            strangers=MAX_STRANGERS,
            open_to_all=True,
            for_pages=FOR_PAGES,
        )
        await self._server.start(listener)
        self.supervisor.start("time-outs", OWNER, self._sweep)

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and wait for those under way; then end them."""
        self._end()
        await self._done(seconds)
        for exchange in list(self._exchanges):
            exchange.end()
        await self._done(SHUTDOWN_SECONDS)

    def _end(self) -> None:
        self._ending = True
        if self._admin is not None:
            self._admin.ending = True

    async def _done(self, seconds: float) -> None:
        """Wait until no request is under way, for so long at most."""
        if self._exchanges:
            self._idle.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._idle.wait(), seconds)

    async def close(self) -> None:
        """Stop serving."""
        self._end()
        for exchange in list(self._exchanges):
            exchange.end()
        if self._server is not None:
            await self._server.close()
        await self.supervisor.close()
        if self._parts is not None:
            await self._parts.upstream.close()

    # Requests

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        if self._ending:
            raise Refused(failures.ending())
        body = await self.bodies.read(request)
        try:
            try:
                asked = parse(request.path, body)
            except BadRequest as error:
                raise Refused(failures.error(400, str(error), param=error.param)) from None
            await self._turn()
            try:
                return await self._serve(request, asked)
            finally:
                self._end_turn()
        finally:
            self.bodies.release(body)

    async def _serve(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        exchange = Exchange(self.parts, request, asked, keys=self._keys)
        self._exchanges.add(exchange)
        try:
            return await exchange.run()
        finally:
            self._exchanges.discard(exchange)
            if not self._exchanges:
                self._idle.set()

    async def _turn(self) -> None:
        """Wait until this request may run. Raises ``Refused``."""
        who = object()
        turn = self.turns.come(who, self._clock())
        if turn is Turn.RUNS:
            return
        if turn is Turn.REFUSED:
            raise Refused(self._busy("too many requests are being served"))
        future = self._waiting[who] = asyncio.get_running_loop().create_future()
        try:
            if not await future:
                raise Refused(self._busy(f"no turn came within {self.turns.wait_seconds:g} s"))
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                self._end_turn()  # it came at the very moment at which the client left
            else:
                self.turns.leave(who)
            raise
        finally:
            del self._waiting[who]

    def _end_turn(self) -> None:
        while (who := self.turns.end(self._clock())) is not None and not self._told(who, runs=True):
            pass  # who left gives its turn to the next at once

    def _told(self, who: object, *, runs: bool) -> bool:
        """Tell one that waits; False where its client left a moment ago, of which it has not heard yet."""
        future = self._waiting[who]
        if future.done():
            return False
        future.set_result(runs)
        return True

    def _end_waits(self, now: float) -> None:
        """Tell those who have waited for too long."""
        for who in self.turns.late(now):
            self._told(who, runs=False)

    def _busy(self, why: str) -> Answer:
        self.stats.refused["queue"] += 1
        return failures.busy(why, self.turns.retry_after())

    async def _models(self, request: web.Request) -> web.StreamResponse:
        shown = request.headers.get(hdrs.AUTHORIZATION)
        headers = {"Authorization": shown} if shown else {}
        for member in sorted(self.fleet, key=lambda one: one.kind is not Kind.DECODE):
            if member.up:
                try:
                    answer = await self.parts.upstream.get(member, "/v1/models", headers)
                except InstanceFailed as failure:
                    self.parts.keeper.failed(failure)
                else:
                    return response(failures.as_error(answer.status, answer.body, answer.headers))
        raise Refused(failures.error(503, "no instance is up", kind=failures.SERVER, code="no_instance", retry_after=1))

    # What is always done

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        let_in(request)
        status = CLIENT_LEFT
        try:
            response = await self._answered(request, handler)
            status = response.status
        except ConnectionError:  # its client left while it was told something: nobody reads this
            self.stats.left += 1
            response = web.Response(status=CLIENT_LEFT)
        except asyncio.CancelledError:
            self.stats.left += 1
            raise
        finally:
            if request.path in {COMPLETIONS, CHAT}:
                self.stats.requests[request.path, status] += 1
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            return response(refused.answer)
        except web.HTTPException as error:
            return response(failures.error(error.status, f"{request.method} {request.path}: {error.reason}"))
        except ConnectionError:
            raise
        except Exception:
            log.exception("a request failed for a defect of the proxy's")
            return response(failures.error(500, "a defect of the proxy", kind=failures.SERVER, code="defect"))

    async def _sweep(self) -> None:
        """Look at who has been silent for too long, and who has waited for too long."""
        options = self.options
        waits = (SWEEP_SECONDS, options.idle_seconds / 4, options.client_seconds / 4, options.wait_seconds / 4)
        while True:
            await asyncio.sleep(min(waits))
            now = self._clock()
            for exchange in list(self._exchanges):
                exchange.look(now, options.idle_seconds, options.client_seconds)
            self._end_waits(now)
            self.parts.dispatcher.tick()
