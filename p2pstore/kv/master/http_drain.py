"""Upstream's paths of the admin surface that empty segments: a job is begun, asked about and ended."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import hdrs, web

from engine.rpc.codes import Code
from p2pstore.kv.master import forms
from p2pstore.kv.master.http_answers import as_json, refused
from p2pstore.kv.master.shown import Shown
from p2pstore.kv.pool.drain import CONCURRENCY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class DrainRoutes:
    """Handlers over what a master shows."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path and handler of each."""
        return [
            (hdrs.METH_POST, "/api/v1/drain_jobs", self._create),
            (hdrs.METH_GET, "/api/v1/drain_jobs/query", self._query),
            (hdrs.METH_POST, "/api/v1/drain_jobs/cancel", self._cancel),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        try:
            segments, targets, concurrency = _wanted(json.loads(await request.read()))
        except (ValueError, RecursionError) as error:
            return refused(Code.BAD_PARAMS, f"Invalid JSON body: {error}")
        job = self._shown.drain(segments, targets, concurrency)
        return refused(job) if isinstance(job, Code) else _done(job, "CREATED")

    async def _query(self, request: web.Request) -> web.Response:
        name = forms.id_of(request.query.get("job_id", ""))
        if name is None:
            return refused(Code.BAD_PARAMS, "Missing or invalid job_id")
        job = self._shown.drain_job(name)
        return refused(job) if isinstance(job, Code) else as_json(forms.drain_job(job))

    async def _cancel(self, request: web.Request) -> web.Response:
        name = forms.id_of(request.query.get("job_id", ""))
        if name is None:
            return refused(Code.BAD_PARAMS, "Missing or invalid job_id")
        code = self._shown.cancel_drain(name)
        return _done(name, "CANCELED") if code is Code.OK else refused(code)


def _wanted(document: Any) -> tuple[list[str], list[str], int]:
    """Segments, targets and moves at a time. Raises ``ValueError``."""
    if not isinstance(document, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - of what somebody sent, and not of what we did
    segments, targets = (document.get(name, []) for name in ("segments", "target_segments"))
    concurrency = document.get("max_concurrency", CONCURRENCY)
    for names in (segments, targets):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("segments and target_segments are lists of names")
    if type(concurrency) is not int:
        raise ValueError("max_concurrency is no whole number")
    return segments, targets, concurrency


def _done(job: bytes, status: str) -> web.Response:
    answer = {"success": True, "job_id": forms.id_text(job), "status": status}
    return as_json({**answer, "error_code": 0, "error_message": ""})
