"""What the admin surface's handlers share: what requests say, and the forms of answers."""

from __future__ import annotations

import json

from aiohttp import hdrs, web

from engine.rpc.codes import Code
from engine.rpc.messages import DEFAULT_TENANT
from p2pstore.kv.master.forms import NAMES

STATUSES = {
    Code.BAD_PARAMS: 400,
    Code.BAD_KEY: 400,
    Code.NO_SEGMENT: 404,
    Code.NO_JOB: 404,
    Code.NOT_FOUND: 404,
    Code.BAD_MODE: 503,
}
"""HTTP's status for a code; 409 where a key is in use."""


def tenant_of(request: web.Request) -> str:
    """Whose keys a request means."""
    return request.query.get("tenant_id") or DEFAULT_TENANT


def forced(request: web.Request) -> bool:
    """Whether leases are to be ended."""
    return request.query.get("force", "") in {"true", "1"}


def refused(code: Code, message: str = "", *, status: int = 0) -> web.Response:
    """What a request is answered that cannot be done, in upstream's form."""
    answer = {"success": False, "error_code": int(code), "error_message": message or NAMES.get(code, code.name)}
    return as_json(answer, status=status or STATUSES.get(code, 409))


def as_json(document: object, *, status: int = 200) -> web.Response:
    """JSON; a key may hold what is no text, which is then shown as an escape."""
    body = json.dumps(document, ensure_ascii=True)
    return web.Response(text=body, status=status, content_type="application/json")


def as_text(text: str, content_type: str = "text/plain; charset=utf-8", *, status: int = 200) -> web.Response:
    """Text; of a key that is none, its bytes."""
    body = text.encode(errors="surrogateescape")
    return web.Response(body=body, status=status, headers={hdrs.CONTENT_TYPE: content_type})
