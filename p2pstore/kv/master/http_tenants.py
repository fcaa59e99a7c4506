"""Upstream's paths of the admin surface for what tenants may take of the memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

from aiohttp import hdrs, web

from engine.rpc.codes import Code
from p2pstore.kv.master import forms
from p2pstore.kv.master.http_answers import as_json, refused
from p2pstore.kv.master.shown import Shown
from p2pstore.kv.pool.tenants import MAX_QUOTA

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PATH = "/api/v1/tenant_quotas"

SLICE = 500
"""Tenants that are told of before others of the loop have their turn: some milliseconds."""


class TenantRoutes:
    """Handlers over what a master shows."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path and handler of each."""
        return [
            (hdrs.METH_GET, PATH, self._tell),
            (hdrs.METH_PUT, PATH, self._set),
            (hdrs.METH_DELETE, PATH, self._take_away),
        ]

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        uses = self._shown.tenant_uses()
        if uses is None:
            return refused(Code.BAD_MODE, status=409)
        wanted = request.query.get("tenant_id", "")
        if wanted:
            one = self._quota(wanted)
            return refused(Code.NOT_FOUND) if one is None else as_json({"success": True, "data": one})
        answer = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/json; charset=utf-8"})
        await answer.prepare(request)
        before = b'{"success": true, "data": ['
        while some := list(islice(uses, SLICE)):
            capacity = self._shown.capacity()
            told = ", ".join(json.dumps(forms.tenant_quota(each, capacity)) for each in some)
            await answer.write(before + told.encode())
            before = b", "
            await asyncio.sleep(0)
        await answer.write(b"]}" if before == b", " else before + b"]}")
        await answer.write_eof()
        return answer

    async def _set(self, request: web.Request) -> web.Response:
        tenant = _tenant(request)
        if not tenant:
            return refused(Code.BAD_PARAMS, "Missing or invalid tenant_id")
        try:
            size = _wanted(json.loads(await request.read()))
        except (ValueError, RecursionError) as error:
            return refused(Code.BAD_PARAMS, f"Invalid JSON body: {error}")
        if not 0 < size <= MAX_QUOTA:
            return refused(Code.BAD_PARAMS, "Tenant quota must be in [1, 2^63 - 1] bytes")
        return self._changed(tenant, self._shown.set_quota(tenant, size))

    async def _take_away(self, request: web.Request) -> web.Response:
        tenant = _tenant(request)
        if not tenant:
            return refused(Code.BAD_PARAMS, "Missing or invalid tenant_id")
        return self._changed(tenant, self._shown.set_quota(tenant, 0))

    def _changed(self, tenant: str, code: Code) -> web.Response:
        if code is Code.BAD_MODE:
            return refused(code, status=409)
        if code is not Code.OK:
            return refused(code)
        return as_json({"success": True, "data": self._quota(tenant)})

    def _quota(self, tenant: str) -> dict[str, Any] | None:
        """What a tenant takes and may take."""
        use = self._shown.tenant_use(tenant)
        return None if use is None else forms.tenant_quota(use, self._shown.capacity())


def _tenant(request: web.Request) -> str:
    """Whose quota is meant; nothing where that is no name, by upstream's rules."""
    name = request.query.get("tenant_id", "")
    return "" if name.startswith("_") or any(ord(each) < 0x20 or ord(each) == 0x7F for each in name) else name


def _wanted(document: Any) -> int:
    """Bytes. Raises ``ValueError``."""
    if not isinstance(document, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - of what somebody sent, and not of what we did
    size = document.get("requested_quota_bytes", 0)
    if type(size) is not int:
        raise ValueError("requested_quota_bytes is no whole number")
    return size
