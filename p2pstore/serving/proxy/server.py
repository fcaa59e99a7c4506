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
import hmac
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from aiohttp import hdrs, web

from engine.net.http_server import HttpServer, let_in
from p2pstore.errors import NodeEnded, UsageError
from p2pstore.serving.events import Kind
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import Policy
from p2pstore.serving.proxy import failures
from p2pstore.serving.proxy.dispatch import Dispatcher
from p2pstore.serving.proxy.exchange import Exchange
from p2pstore.serving.proxy.failures import Answer
from p2pstore.serving.proxy.fleet import (
    KINDS,
    BadInstance,
    Fleet,
    Place,
    parse_bootstrap,
    parse_endpoint,
    parse_instance,
)
from p2pstore.serving.proxy.keeper import OWNER, Keeper
from p2pstore.serving.proxy.knowing import Knowing
from p2pstore.serving.proxy.options import MAX_BODIES_BYTES, SWEEP_SECONDS, Options
from p2pstore.serving.proxy.parts import Parts
from p2pstore.serving.proxy.requests import CHAT, COMPLETIONS, MAX_BODY_BYTES, Asked, BadRequest, parse
from p2pstore.serving.proxy.stats import Stats
from p2pstore.serving.proxy.turns import Turn, Turns
from p2pstore.serving.proxy.upstream import InstanceFailed, Problem, Upstream
from p2pstore.supervisor import Supervisor

log = logging.getLogger(__name__)

MAX_STRANGERS = 4096
"""Connections without a request: clients come in crowds."""

SHUTDOWN_SECONDS = 2.0
"""For connections to end, once no request is under way."""

ADMIN_KEY = "X-API-Key"

CLIENT_LEFT = 499
"""The status that is counted for a client that left."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """A request ends with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


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
        self._bodies = 0
        self._idle = asyncio.Event()
        self._ending = False
        self._parts: Parts | None = None
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
        if options.pool is not None:
            knowing.listen_to_pool(options.pool)
        for kind, places in ((Kind.PREFILL, options.prefill), (Kind.DECODE, options.decode)):
            for place in places:
                keeper.add(place, kind)
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        app.router.add_post(COMPLETIONS, self._completions)
        app.router.add_post(CHAT, self._completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/healthcheck", self._health)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/instances/add", self._add)
        app.router.add_post("/instances/remove", self._remove)
        self._server = HttpServer(
            app, logger=log, shutdown_seconds=SHUTDOWN_SECONDS, cancels=True, strangers=MAX_STRANGERS
        )
        await self._server.start(listener)
        self.supervisor.start("time-outs", OWNER, self._sweep)

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and wait for those under way; then end them."""
        self._ending = True
        await self._done(seconds)
        for exchange in list(self._exchanges):
            exchange.end()
        await self._done(SHUTDOWN_SECONDS)

    async def _done(self, seconds: float) -> None:
        """Wait until no request is under way, for so long at most."""
        if self._exchanges:
            self._idle.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)

    async def close(self) -> None:
        """Stop serving."""
        self._ending = True
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
            raise Refused(failures.error(503, "the proxy is ending", kind=failures.SERVER, code="ending"))
        body = await self._body(request)
        self._bodies += len(body)
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
            self._bodies -= len(body)

    async def _serve(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        exchange = Exchange(self.parts, request, asked, keys=self._keys)
        self._exchanges.add(exchange)
        try:
            return await exchange.run()
        finally:
            self._exchanges.discard(exchange)
            if not self._exchanges:
                self._idle.set()

    async def _body(self, request: web.Request) -> bytes:
        """The body, which is JSON as its headers say. Raises ``Refused``."""
        if request.content_type != "application/json":
            said = "only 'Content-Type: application/json' is served"
            raise Refused(failures.error(415, said, code="unsupported_media_type"))
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise Refused(failures.error(415, "compressed bodies are not served", code="unsupported_media_type"))
        size = request.content_length or 0
        if size > MAX_BODY_BYTES:
            raise Refused(_too_large())
        if self._bodies + size > MAX_BODIES_BYTES:
            raise Refused(self._busy("too many bytes of requests are being served"))
        if request.content.is_eof():
            return await self._read(request)
        try:
            return await asyncio.wait_for(self._read(request), self.options.body_seconds)
        except asyncio.TimeoutError:
            said = f"the body did not come within {self.options.body_seconds:g} s"
            raise Refused(failures.error(408, said, code="timeout")) from None

    async def _read(self, request: web.Request) -> bytes:
        parts, size = [], 0
        try:
            while part := await request.content.readany():
                parts.append(part)
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise Refused(_too_large())
        except web.RequestPayloadError:
            raise Refused(failures.error(400, "the body broke off", code="broken_body")) from None
        return b"".join(parts)

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
        who = self.turns.end(self._clock())
        if who is not None:
            future = self._waiting[who]
            if future.done():
                self._end_turn()  # its client left a moment ago, and has not been told yet
            else:
                future.set_result(True)

    def _busy(self, why: str) -> Answer:
        self.stats.refused["queue"] += 1
        return failures.error(
            429, f"{why}; come again later", kind=failures.LIMITED, code="busy", retry_after=self.turns.retry_after()
        )

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
                    return _response(failures.as_error(answer.status, answer.body, answer.headers))
        raise Refused(failures.error(503, "no instance is up", kind=failures.SERVER, code="no_instance", retry_after=1))

    # Those who look after it

    async def _health(self, _: web.Request) -> web.StreamResponse:
        ready = self.fleet.ready and not self._ending
        document = {
            "status": "ok" if ready else "ending" if self._ending else "no instances",
            "prefill_instances": len(self.fleet.of(Kind.PREFILL)),
            "decode_instances": len(self.fleet.of(Kind.DECODE)),
        }
        return web.json_response(document, status=200 if ready else 503)

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.status())

    def status(self) -> dict[str, Any]:
        """What it has and does."""
        now = self._clock()
        nodes = {name: [one.place.address for one in self.fleet.of(kind)] for name, kind in KINDS.items()}
        policy = self.options.policy
        return {
            "prefill_node_count": len(nodes["prefill"]),
            "decode_node_count": len(nodes["decode"]),
            "prefill_nodes": nodes["prefill"],
            "decode_nodes": nodes["decode"],
            "model": self.options.model,
            "scheduling": policy.placement.value,
            "admission": policy.admission.value,
            "kv": "p2p" if self.options.p2p else "store",
            "seconds": round(now - self._began, 1),
            "running": self.turns.running,
            "waiting": self.turns.waiting,
            "instances": [member.to_json(now) for member in self.fleet],
            "tasks": [task for task in self.supervisor.report() if task["failures"]],
        }

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        try:
            from p2pstore.serving.proxy import metrics  # noqa: PLC0415 - an extra
        except ImportError:
            said = "metrics need prometheus-client: pip install 'mooncake-cli[proxy]'"
            raise Refused(failures.error(501, said, kind=failures.SERVER, code="no_metrics")) from None
        body = metrics.render(self.stats, self.fleet, self.turns)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _add(self, request: web.Request) -> web.StreamResponse:
        kind, place, document = await self._named(request)
        assert kind is not None  # noqa: S101 - see ``_named``
        try:
            await self.parts.keeper.add_verified(_with(place, document), kind)
        except (BadInstance, Problem, UsageError) as error:
            said = f"{place.address} is not added: {error}"
            raise Refused(failures.error(400, said, code="bad_instance", param="instance")) from None
        return web.json_response({"message": f"Added {document['instance']} to {kind.value}_instances."})

    async def _remove(self, request: web.Request) -> web.StreamResponse:
        kind, place, document = await self._named(request)
        found = self.parts.keeper.find(kind, place)
        if not found:
            said = f"{place.address} is no {kind.value if kind else ''} instance of this proxy"
            raise Refused(failures.error(404, said, code="no_such_instance", param="instance"))
        for member in found:
            self.parts.keeper.remove(member)
        names = ", ".join(f"{member.kind.value}_instances" for member in found)
        return web.json_response(
            {
                "message": f"Removed {document['instance']} from {names}.",
                "running": sum(member.running for member in found),
            }
        )

    async def _named(self, request: web.Request) -> tuple[Kind | None, Place, dict[str, Any]]:
        """The instance that somebody with the key names. Raises ``Refused``."""
        self._see_the_key(request)
        document = failures.parsed(await self._body(request))
        if document is None:
            raise Refused(failures.error(400, "the body is no JSON object"))
        kind = document.get("type")
        named = KINDS.get(kind) if isinstance(kind, str) else None
        if named is None and (kind is not None or request.path == "/instances/add"):
            raise Refused(failures.error(400, f"'type' is one of {', '.join(KINDS)}", param="type"))
        instance = document.get("instance")
        try:
            return named, parse_instance(instance if isinstance(instance, str) else ""), document
        except BadInstance as error:
            raise Refused(failures.error(400, str(error), param="instance")) from None

    def _see_the_key(self, request: web.Request) -> None:
        if not self.options.admin_key:
            said = "ADMIN_API_KEY is not set in the proxy's environment: instances can be neither added nor removed"
            raise Refused(failures.error(500, said, kind=failures.SERVER, code="no_admin_key"))
        shown = request.headers.get(ADMIN_KEY, "")
        if not hmac.compare_digest(shown.encode(errors="replace"), self.options.admin_key.encode(errors="replace")):
            raise Refused(failures.error(403, f"{ADMIN_KEY} is not the key", kind=failures.REFUSED, code="bad_key"))

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
            return _response(refused.answer)
        except web.HTTPException as error:
            return _response(failures.error(error.status, f"{request.method} {request.path}: {error.reason}"))
        except ConnectionError:
            raise
        except Exception:
            log.exception("a request failed for a defect of the proxy's")
            return _response(failures.error(500, "a defect of the proxy", kind=failures.SERVER, code="defect"))

    async def _sweep(self) -> None:
        """Look at who has been silent for too long, and who has waited for too long."""
        options = self.options
        waits = (SWEEP_SECONDS, options.idle_seconds / 4, options.client_seconds / 4, options.wait_seconds / 4)
        while True:
            await asyncio.sleep(min(waits))
            now = self._clock()
            for exchange in list(self._exchanges):
                exchange.look(now, options.idle_seconds, options.client_seconds)
            for who in self.turns.late(now):
                self._waiting[who].set_result(False)
            self.parts.dispatcher.tick()


def _with(place: Place, document: Mapping[str, Any]) -> Place:
    """What is said of an instance besides where it is. Raises ``BadInstance``."""
    bootstrap, events, replay = (document.get(key) for key in ("bootstrap", "kv_events", "kv_replay"))
    return replace(
        place,
        bootstrap=None if bootstrap is None else parse_bootstrap(str(bootstrap)),
        events=None if events is None else parse_endpoint(str(events)),
        replay=None if replay is None else parse_endpoint(str(replay)),
    )


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))


def _too_large() -> Answer:
    return failures.error(413, f"the body is larger than {MAX_BODY_BYTES} bytes", code="body_too_large")
