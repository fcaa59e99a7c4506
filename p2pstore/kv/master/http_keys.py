"""The admin surface's own paths for keys: which there are, one of them, and why one cannot be read.

A key that is too long for a line of HTTP is the body of a POST to the same path.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence

from aiohttp import hdrs, web

from engine.rpc.codes import Code
from p2pstore.kv.master import forms
from p2pstore.kv.master.http_answers import as_json, forced, refused, tenant_of
from p2pstore.kv.master.shown import Shown
from p2pstore.kv.master.why_clients import why_callers
from p2pstore.kv.master.why_key import why_key

LINES = "application/x-ndjson"

MAX_DIGITS = 20
"""Of a number; Python reads none of thousands."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KeyRoutes:
    """Handlers over what a master shows; ``sliced`` gives all keys, a tenant and some of its keys at a time."""

    def __init__(self, shown: Shown, sliced: Callable[[], Iterator[tuple[str, Sequence[str]]]]) -> None:
        self._shown = shown
        self._sliced = sliced

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path and handler of each."""
        return [
            (hdrs.METH_GET, "/api/v1/keys", self._keys),
            (hdrs.METH_GET, "/api/v1/keys/info", self._key),
            (hdrs.METH_POST, "/api/v1/keys/info", self._key),
            (hdrs.METH_DELETE, "/api/v1/keys", self._remove),
            (hdrs.METH_POST, "/api/v1/keys/remove", self._remove),
            (hdrs.METH_GET, "/api/v1/why", self._why),
            (hdrs.METH_POST, "/api/v1/why", self._why),
        ]

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        prefix, tenant = request.query.get("prefix", ""), request.query.get("tenant_id")
        left = request.query.get("limit", "")
        if left and (not left.isdecimal() or len(left) > MAX_DIGITS):
            return refused(Code.BAD_PARAMS, "limit is no whole number, or a very long one")
        room = int(left) if left else sys.maxsize
        answer = web.StreamResponse(headers={hdrs.CONTENT_TYPE: LINES})
        await answer.prepare(request)
        for owner, keys in self._sliced():
            wanted = [key for key in keys if key.startswith(prefix)] if tenant in {None, owner} else []
            shown = [self._shown.shown(owner, key) for key in wanted[:room]]
            lines = [json.dumps(each._asdict()) + "\n" for each in shown if each is not None]
            room -= len(lines)
            await answer.write("".join(lines).encode())
            if not room:
                break
            await asyncio.sleep(0)
        await answer.write_eof()
        return answer

    async def _key(self, request: web.Request) -> web.Response:
        key, tenant = await _named(request), tenant_of(request)
        found = self._shown.replicas(key, tenant)
        if isinstance(found, Code):
            return refused(found)
        facts = self._shown.key_facts(key, tenant)
        return as_json(
            {
                "key": key,
                "tenant": tenant,
                "size": max((each.size for each in facts.replicas), default=0),
                "leased_for": round(facts.leased_for, 3),
                "replicas": [forms.replica(each) for each in found],
            }
        )

    async def _remove(self, request: web.Request) -> web.Response:
        key = await _named(request)
        if not key:
            return refused(Code.BAD_PARAMS, "Missing key query parameter")
        code = self._shown.remove(key, tenant_of(request), force=forced(request))
        return as_json({"success": True}) if code is Code.OK else refused(code)

    async def _why(self, request: web.Request) -> web.Response:
        pool = self._shown.pool_facts()
        if "key" in request.query or request.method == hdrs.METH_POST:
            found = why_key(self._shown.key_facts(await _named(request), tenant_of(request)), pool)
        else:
            found = why_callers(self._shown.caller_facts(), pool, request.query.get("client", ""))
        return as_json({"findings": [each._asdict() for each in found]})


async def _named(request: web.Request) -> str:
    """The key that a request is about."""
    if request.method == hdrs.METH_POST:
        return (await request.read()).decode(errors="surrogateescape")
    return request.query.get("key", "")
