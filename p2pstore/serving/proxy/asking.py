"""Asks an instance for one request, and waits for what it says: where it may be waited for no more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp

from p2pstore.serving.proxy.events import BadStream, Events
from p2pstore.serving.proxy.fleet import Member
from p2pstore.serving.proxy.options import MAX_ANSWER_BYTES
from p2pstore.serving.proxy.upstream import InstanceFailed, Upstream, broken, read
from p2pstore.serving.proxy.waits import Waits


class Asking:
    """All raise ``InstanceFailed``, and ``CancelledError`` where the wait was ended."""

    def __init__(self, upstream: Upstream, waits: Waits, path: str) -> None:
        self._upstream, self._waits, self._path = upstream, waits, path

    async def post(self, member: Member, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The answer, once its headers are there."""
        self._waits.on(member)
        answer = await self._upstream.post(member, self._path, body, headers)
        self._waits.over()
        return answer

    async def whole(self, member: Member, answer: aiohttp.ClientResponse) -> bytes:
        """All of an answer."""
        self._waits.on(member)
        try:
            found = await read(answer, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise broken(member, error) from None
        self._waits.over()
        if found is None:
            raise InstanceFailed(member, f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
        return found

    async def more(self, member: Member, answer: aiohttp.ClientResponse, events: Events) -> bytes | None:
        """The events of a stream that are whole by now; None at its end."""
        self._waits.on(member)
        try:
            data = await answer.content.readany()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise broken(member, error) from None
        self._waits.over()
        try:
            return events.feed(data) if data else None
        except BadStream as error:
            raise InstanceFailed(member, str(error)) from None
