"""The bodies of clients' requests, read within limits; and how a request ends before it was begun."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from engine.net.within import within
from p2pstore.serving.proxy import failures
from p2pstore.serving.proxy.failures import Answer
from p2pstore.serving.proxy.options import MAX_BODIES_BYTES
from p2pstore.serving.proxy.requests import MAX_BODY_BYTES


class Refused(Exception):
    """A request ends with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Bodies:
    """Reads bodies, and counts the bytes of those that are held, or come."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` are for the whole of one, once its headers are there."""
        self._seconds = seconds
        self.held = 0

    async def read(self, request: web.Request) -> bytes:
        """The body, which is JSON as its headers say, and is held until ``release``. Raises ``Refused``."""
        if request.content_type != "application/json":
            said = "only 'Content-Type: application/json' is served"
            raise Refused(failures.error(415, said, code="unsupported_media_type"))
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise Refused(failures.error(415, "compressed bodies are not served", code="unsupported_media_type"))
        size = request.content_length or 0
        if size > MAX_BODY_BYTES:
            raise Refused(_too_large())
        if self.held + size > MAX_BODIES_BYTES:
            raise Refused(_too_much())
        if request.content.is_eof():
            return await self._read(request)
        try:
            return await within(self._read(request), self._seconds)
        except asyncio.TimeoutError:
            said = f"the body did not come within {self._seconds:g} s"
            raise Refused(failures.error(408, said, code="timeout")) from None

    async def _read(self, request: web.Request) -> bytes:
        parts: list[bytes] = []
        size, whole = 0, False
        try:
            while part := await request.content.readany():
                parts.append(part)
                size += len(part)
                self.held += len(part)
                if size > MAX_BODY_BYTES:
                    raise Refused(_too_large())
                if self.held > MAX_BODIES_BYTES:
                    raise Refused(_too_much())
            whole = True
        except web.RequestPayloadError:
            raise Refused(failures.error(400, "the body broke off", code="broken_body")) from None
        finally:
            if not whole:
                self.held -= size
        return b"".join(parts)

    def release(self, body: bytes) -> None:
        """A body is not needed any more."""
        self.held -= len(body)


def response(answer: Answer) -> web.Response:
    """An answer as aiohttp sends it."""
    return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))


def _too_much() -> Answer:
    return failures.busy("too many bytes of requests are being served", 1.0)


def _too_large() -> Answer:
    return failures.error(413, f"the body is larger than {MAX_BODY_BYTES} bytes", code="body_too_large")
