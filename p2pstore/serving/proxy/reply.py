"""What one client is answered: nothing until there is something to say; then all of it, or a stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from aiohttp import web

from p2pstore.serving.proxy import failures
from p2pstore.serving.proxy.failures import Answer

REQUEST_ID = "X-Request-Id"
MAX_REQUEST_ID = 128
"""Characters; a longer one is not believed."""

HELD_SECONDS = 0.005
"""A client that takes what it is sent is waited for no longer: it is copied to the kernel's buffer."""


class Reply:
    """To one request."""

    def __init__(self, request: web.Request, clock: Callable[[], float]) -> None:
        self._request = request
        self._clock = clock
        self._response: web.StreamResponse | None = None
        self._sends_since: float | None = None
        self.held = False
        """Whether its client took the last tokens so slowly that those behind them had to wait."""
        given = request.headers.get(REQUEST_ID, "")
        self.id = given if 0 < len(given) <= MAX_REQUEST_ID else _new_id()

    @property
    def begun(self) -> bool:
        """Whether a stream has begun: then the client has its status, and nothing begins anew unseen."""
        return self._response is not None

    @property
    def connected(self) -> bool:
        """Whether the client is there, as far as is known."""
        return self._request.transport is not None

    def stuck(self, now: float, seconds: float) -> bool:
        """Whether the client takes nothing, for so long by now."""
        return self._sends_since is not None and now - self._sends_since >= seconds

    def cut(self) -> None:
        """Close the client's connection at once."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Begin a stream: what is sent next goes with the headers."""
        self._response = _Stream(headers=headers)
        self._sign(self._response)
        await self._response.prepare(self._request)

    async def send(self, data: bytes, *, last: bool = False) -> web.StreamResponse:
        """Whole events of the stream that has begun."""
        assert self._response is not None  # noqa: S101 - it has begun
        began = self._sends_since = self._clock()
        await (self._response.write_eof(data) if last else self._response.write(data))
        self._sends_since = None
        self.held = self._clock() - began > HELD_SECONDS
        return self._response

    def whole(self, answer: Answer) -> web.Response:
        """All at once."""
        response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        self._sign(response)
        return response

    async def error(self, answer: Answer) -> web.StreamResponse:
        """An error: as the answer, or as the last event of a stream that has begun."""
        if not self.begun:
            return self.whole(answer)
        return await self.send(failures.last_event(answer), last=True)

    def _sign(self, response: web.StreamResponse) -> None:
        response.headers[REQUEST_ID] = self.id  # and not what an instance made of it


class _Stream(web.StreamResponse):
    _send_headers_immediately = False
    """As in aiohttp's own answers that are no streams: the first token goes with the headers, in one packet."""


def _new_id() -> str:
    return f"{random.getrandbits(128):032x}"  # it is to differ from others', and no secret
