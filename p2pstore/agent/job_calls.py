"""The part of the agent's API that is about jobs: gets in the background.

::

    POST /v1/jobs              as a get, but for "dry_run", and {"wait","retries","timeout"}
    GET  /v1/jobs
    GET  /v1/jobs/ID
    POST /v1/jobs/ID/wait      lines, as of the get
    POST /v1/jobs/ID/cancel

``wait`` and ``timeout`` are seconds; the first may be ``"for-ever"``, the second null. What neither waits nor tries
again is no job where its name means nothing: the answer is the get's error.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from p2pstore.agent.bodies import body_of, get_request
from p2pstore.agent.job import ASKED
from p2pstore.agent.jobs import Jobs, Limits
from p2pstore.agent.sight import check as check_sight
from p2pstore.errors import UsageError
from p2pstore.pull.run import Emit

FOR_EVER = "for-ever"

Stream = Callable[..., Awaitable[web.StreamResponse]]


class JobCalls:
    """Answers those calls. ``stream`` sends the events of a long one, and its result or error."""

    def __init__(self, jobs: Jobs, stream: Stream) -> None:
        self._jobs = jobs
        self._stream = stream

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Have a server answer them."""
        router.add_post("/v1/jobs", self._begin)
        router.add_get("/v1/jobs", self._all)
        router.add_get("/v1/jobs/{id}", self._show)
        router.add_post("/v1/jobs/{id}/wait", self._wait)
        router.add_post("/v1/jobs/{id}/cancel", self._cancel)

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        wanted, limits = get_request(body), _limits(body)
        if wanted.dry_run:
            raise UsageError(detail="a dry run is over at once; it needs no job")
        await asyncio.to_thread(check_sight, body.get("sight"))
        job = await self._jobs.begin(wanted, {key: body.get(key) for key in ASKED}, limits)
        if not limits.patient:  # else what is not there yet may come
            await self._jobs.taken_up(job)
        return web.json_response(job.document())

    async def _all(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"jobs": [job.document() for job in self._jobs.all()]})

    async def _show(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._jobs.find(_number(request)).document())

    async def _wait(self, request: web.Request) -> web.StreamResponse:
        number = _number(request)
        self._jobs.find(number)

        async def work(emit: Emit) -> dict[str, Any]:
            return await self._jobs.wait(number, emit)

        return await self._stream(request, work, waits=True)

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        return web.json_response((await self._jobs.cancel(_number(request))).document())


def _number(request: web.Request) -> int:
    text = request.match_info["id"]
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(detail=f"{text!r} is no job's number")
    return int(text)


def _limits(body: Mapping[str, Any]) -> Limits:
    wait, retries, timeout = body.get("wait") or 0, body.get("retries") or 0, body.get("timeout")
    if wait == FOR_EVER:
        wait = math.inf
    elif type(wait) not in {int, float} or not 0 <= wait < math.inf:
        raise UsageError(detail="wait is no number of seconds")
    if type(retries) is not int or retries < 0:
        raise UsageError(detail="retries is no number")
    if timeout is not None and (type(timeout) not in {int, float} or not 0 < timeout < math.inf):
        raise UsageError(detail="timeout is no number of seconds")
    return Limits(wait, retries, timeout)
