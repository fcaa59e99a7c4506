"""The master's admin surface over HTTP: upstream's paths, and some of our own below ``/api/v1``.

::

    GET  /metrics  /metrics/summary                 for Prometheus (two formats) and for people
    GET  /health  /role  /ha_status  /leader        whether it serves
    GET  /query_key?key=K  /batch_query_keys?keys=K,K   where values lie
    GET  /get_all_keys  /get_all_segments           one a line
    GET  /query_segment?segment=S  /get_segments_detail
    GET  /kv_events/status                          there are none here
    GET  /api/v1/segments/status?segment=S
    POST /api/v1/remove_all?force=1&tenant_id=T
    GET  /api/v1/tenant_quotas?tenant_id=T
    PUT  /api/v1/tenant_quotas?tenant_id=T  {"requested_quota_bytes": N}
    DELETE /api/v1/tenant_quotas?tenant_id=T
    POST /api/v1/drain_jobs  {"segments": [S], "target_segments": [S], "max_concurrency": N}
    GET  /api/v1/drain_jobs/query?job_id=J
    POST /api/v1/drain_jobs/cancel?job_id=J

    GET    /api/v1/status                           what 'mooncake store status' shows
    GET    /api/v1/keys?prefix=P&tenant_id=T&limit=N    a line of JSON for each key, in no order
    GET    /api/v1/keys/info?key=K&tenant_id=T      one key
    DELETE /api/v1/keys?key=K&tenant_id=T&force=1
    GET    /api/v1/why?key=K&tenant_id=T  or ?client=ADDRESS
    POST   /api/v1/keys/info  /keys/remove  /api/v1/why  the same of a key that is the body

Looking at a key grants no lease here. There is no password, as upstream has none; web pages, which a browser on this
host would let call us, are refused as ``engine.net.web_pages`` says.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import unquote

from aiohttp import hdrs, web

from engine.net import addresses
from engine.net.http_server import HttpServer, let_in
from engine.rpc.codes import Code
from engine.rpc.messages import Memory, Replica
from p2pstore.kv.master import forms
from p2pstore.kv.master.facts import by_host
from p2pstore.kv.master.http_answers import as_json, as_text, forced, refused, tenant_of
from p2pstore.kv.master.http_drain import DrainRoutes
from p2pstore.kv.master.http_keys import KeyRoutes
from p2pstore.kv.master.http_tenants import TenantRoutes
from p2pstore.kv.master.metrics import OPENMETRICS, TEXT, families, render, summary
from p2pstore.kv.master.shown import Shown
from p2pstore.kv.pool.walks import to_the_end

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 1.0
"""For requests under way at the end."""

MAX_BODY = 4 << 20
"""Bytes of a body, which is a key that is too long for a line of HTTP."""

SLICE = 500
"""Keys that are written before others of the loop have their turn: some milliseconds, where each is looked at."""

Network = IPv4Network | IPv6Network

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """Serves ``shown`` from ``start`` to ``close``, in one event loop."""

    def __init__(self, shown: Shown, allow: Sequence[Network] = ()) -> None:
        """``allow`` are the networks that may ask; whoever reaches it where there are none."""
        self._shown = shown
        self._allow = allow
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        for path, handler in (
            ("/metrics", self._metrics),
            ("/metrics/summary", self._summary),
            ("/health", self._health),
            ("/role", self._role),
            ("/ha_status", self._ha_status),
            ("/leader", self._leader),
            ("/kv_events/status", self._kv_events),
            ("/query_key", self._served(self._query_key)),
            ("/batch_query_keys", self._served(self._batch_query_keys)),
            ("/get_all_keys", self._served(self._get_all_keys)),
            ("/get_all_segments", self._served(self._get_all_segments)),
            ("/query_segment", self._served(self._query_segment)),
            ("/get_segments_detail", self._served(self._get_segments_detail)),
            ("/api/v1/segments/status", self._served(self._segment_status)),
            ("/api/v1/status", self._status),
        ):
            app.router.add_get(path, handler)
        app.router.add_post("/api/v1/remove_all", self._served(self._remove_all))
        several = (KeyRoutes(shown, self._sliced), DrainRoutes(shown), TenantRoutes(shown))
        for method, path, handler in (route for each in several for route in each.routes()):
            app.router.add_route(method, path, self._served(handler))
        self._server = HttpServer(app, logger=log, shutdown_seconds=SHUTDOWN_SECONDS, cancels=True, open_to_all=True)

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening socket, which is closed in the end."""
        await self._server.start(listener)

    async def close(self) -> None:
        """Stop listening, and end what is under way."""
        await self._server.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whoever may ask is no stranger here: there is no password."""
        if self._allow and not self._allowed(request.remote or ""):
            raise web.HTTPForbidden(text="not from there")
        let_in(request)
        return await handler(request)

    def _allowed(self, host: str) -> bool:
        return addresses.is_ip(host) and any(addresses.as_ip(host) in network for network in self._allow)

    def _served(self, handler: Handler) -> Handler:
        """A handler that answers once calls are served."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if not self._shown.ready():
                return refused(Code.BAD_MODE, "service plane is not active")
            return await handler(request)

        return handle

    async def _metrics(self, request: web.Request) -> web.Response:
        openmetrics = "application/openmetrics-text" in request.headers.get(hdrs.ACCEPT, "")
        text = render(families(self._shown.readings()), openmetrics=openmetrics)
        return as_text(text, OPENMETRICS if openmetrics else TEXT)

    async def _summary(self, _: web.Request) -> web.Response:
        role, state = self._role_and_state()
        ready = str(self._shown.ready()).lower()
        line = f"role={role}, state={state}, service_ready={ready}, master={{{summary(self._shown.readings())}}}"
        return as_text(line, TEXT)

    def _role_and_state(self) -> tuple[str, str]:
        return ("leader", "serving") if self._shown.ready() else ("standby", "recovering")

    async def _health(self, _: web.Request) -> web.Response:
        role, state = self._role_and_state()
        ready = self._shown.ready()
        answer = {"status": "ok", "role": role, "ha_state": state, "service_ready": ready}
        return as_json({**answer, "leader_address": None, "view_version": None})

    async def _role(self, _: web.Request) -> web.Response:
        return as_text(self._role_and_state()[0])

    async def _ha_status(self, _: web.Request) -> web.Response:
        return as_text(self._role_and_state()[1])

    async def _leader(self, _: web.Request) -> web.Response:
        return as_json({"present": False, "leader_address": None, "view_version": None})

    async def _kv_events(self, _: web.Request) -> web.Response:
        counts = dict.fromkeys(("published_batches", "published_events", "dropped_events", "skipped_unparsed_keys"), 0)
        return as_json({"enabled": False, **counts})

    async def _query_key(self, request: web.Request) -> web.Response:
        found: Sequence[Replica] | Code = Code.NOT_FOUND
        for key in _spellings(request, "key"):
            found = self._shown.replicas(key, tenant_of(request))
            if found is not Code.NOT_FOUND:
                break
        if isinstance(found, Code):
            return refused(found, status=404)
        places = [replica.place for replica in found]
        return as_json(
            {"success": True, "data": [forms.buffer(place) for place in places if isinstance(place, Memory)]}
        )

    async def _batch_query_keys(self, request: web.Request) -> web.Response:
        keys = [key for each in request.query.getall("keys", []) if each for key in each.split(",")]
        if not keys:
            return as_json({"success": False, "error": "No keys provided. Use ?keys=key1,key2,..."}, status=400)
        tenant = tenant_of(request)
        data = {}
        for count, key in enumerate(keys, 1):
            data[key] = forms.in_batch(self._shown.replicas(key, tenant))
            if not count % SLICE:
                await asyncio.sleep(0)
        return as_json({"success": True, "data": data})

    def _sliced(self) -> Iterator[tuple[str, Sequence[str]]]:
        """All keys, a tenant and some of its keys at a time."""
        for tenant, keys in self._shown.names():
            for first in range(0, len(keys), SLICE):
                yield tenant, keys[first : first + SLICE]

    async def _get_all_keys(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={hdrs.CONTENT_TYPE: TEXT})
        await answer.prepare(request)
        for _, keys in self._sliced():
            await answer.write("".join(f"{key}\n" for key in keys).encode(errors="surrogateescape"))
            await asyncio.sleep(0)
        await answer.write_eof()
        return answer

    async def _get_all_segments(self, _: web.Request) -> web.Response:
        names = dict.fromkeys(segment.name for segment in self._shown.segments())
        return as_text("".join(f"{name}\n" for name in names), TEXT)

    async def _query_segment(self, request: web.Request) -> web.Response:
        name = request.query.get("segment", "")
        found = [segment for segment in self._shown.segments() if segment.name == name]
        if not found:
            return as_text("Failed to query segment", TEXT, status=500)
        used, size = sum(each.used for each in found), sum(each.size for each in found)
        return as_text(f"{name}\nUsed(bytes): {used}\nCapacity(bytes) : {size}\n", TEXT)

    async def _get_segments_detail(self, _: web.Request) -> web.Response:
        segments = [forms.segment(segment) for segment in self._shown.segments()]
        return as_json({"total_segments": len(segments), "segments": segments})

    async def _segment_status(self, request: web.Request) -> web.Response:
        name = request.query.get("segment", "")
        if not name:
            return refused(Code.BAD_PARAMS, "Missing segment query parameter")
        found = next((each for each in self._shown.segments() if each.name == name), None)
        if found is None:
            return refused(Code.NO_SEGMENT)
        status = forms.segment_status(found)
        answer = {"success": True, "segment": name, "status": int(status), "status_name": status.name}
        return as_json({**answer, "error_code": 0, "error_message": ""})

    async def _remove_all(self, request: web.Request) -> web.Response:
        steps = self._shown.remove_all(request.query.get("tenant_id", ""), force=forced(request))
        return as_json({"success": True, "removed_count": await to_the_end(steps)})

    async def _status(self, _: web.Request) -> web.Response:
        readings = self._shown.readings()
        role, state = self._role_and_state()
        return as_json(
            {
                **self._shown.status(),
                "role": role,
                "state": state,
                "ready": self._shown.ready(),
                "numbers": dict(readings.numbers),
                "calls": {call: list(counts) for call, counts in readings.calls.items()},
                "unknown_calls": dict(readings.unknown),
                "segments": [
                    {**forms.segment(each), "status": each.status, "silent": round(each.silent, 3)}
                    for each in self._shown.segments()
                ],
                "clients": [forms.caller(each) for each in by_host(self._shown.caller_facts())],
            }
        )


def _spellings(request: web.Request, name: str) -> list[str]:
    """What a parameter may mean: a plus is a space to most clients, and upstream's master takes it as it is."""
    decoded = request.query.get(name, "")
    raw = [
        part.partition("=")[2] for part in request.rel_url.raw_query_string.split("&") if part.startswith(f"{name}=")
    ]
    return [decoded, *(unquote(text) for text in raw if "+" in text)]
