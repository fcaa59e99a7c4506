"""The part of the agent's API by which programs read objects where they are: what is in one, and ranges of its files.

::

    GET  /v1/tree  ?path=&list=1&recursive=1
    POST /v1/read  {"name","manifest","ranges":[[file,begin,end],..]}          lines, and after one "bytes" those

A ``path`` is an object's name, with a digest or without, and a path in it. With ``list`` what is in a directory is
told, too. ``manifest`` is that of the object that a tree told; so what is read is all of one version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from p2pstore.agent.bodies import body_of, text_of
from p2pstore.errors import UsageError
from p2pstore.holding.parts import Parts
from p2pstore.hub.ranges import FileRange, Readers
from p2pstore.objects.entries import DIRECTORY, Entry, entries_in, entry_at
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.chosen_get import located
from p2pstore.pull.get import GetRequest
from p2pstore.pull.run import Emit

MAX_RANGES = 16_384
"""Of one call."""

Stream = Callable[..., Awaitable[web.StreamResponse]]


class ReadCalls:
    """Answers those calls. ``stream`` sends the events of a long one, and its result or error."""

    def __init__(self, parts: Parts, readers: Readers, stream: Stream) -> None:
        self._parts = parts
        self._readers = readers
        self._stream = stream

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Have a server answer them."""
        router.add_get("/v1/tree", self._tree)
        router.add_post("/v1/read", self._read)

    async def _tree(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        wanted = await located(self._parts, GetRequest(query.get("path", ""), Path("-")))
        record, manifest = await self._readers.find(wanted.name)
        inside = wanted.choice.inside.strip("/")

        def look() -> tuple[Entry, list[Entry]]:
            entry = entry_at(manifest, inside, wanted.name)
            listed = entry.kind == DIRECTORY and bool(query.get("list"))
            return entry, entries_in(manifest, inside, recursive=bool(query.get("recursive"))) if listed else []

        entry, below = await asyncio.to_thread(look)
        return web.json_response(
            {
                "object": wanted.name,
                "name": record.name,
                "manifest": manifest.digest,
                "created": record.created,
                "chunk_size": manifest.chunk_size,
                "entry": entry._asdict(),
                "entries": [each._asdict() for each in below],
            }
        )

    async def _read(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        reference = f"{text_of(body, 'name')}@{text_of(body, 'manifest')}"
        ranges = _ranges(body.get("ranges"))

        async def work(emit: Emit) -> dict[str, Any]:
            async def take(data: memoryview) -> None:
                sent = asyncio.Event()
                emit({"event": "data", "data": data, "sent": sent})
                await sent.wait()

            manifest: Manifest
            record, manifest = await self._readers.find(reference)
            return {"bytes": await self._readers.read(record, manifest, ranges, take)}

        return await self._stream(request, work)


def _ranges(value: Any) -> list[FileRange]:
    if not isinstance(value, list) or len(value) > MAX_RANGES:
        raise UsageError(detail=f"ranges is no list of up to {MAX_RANGES}")
    for each in value:
        if not isinstance(each, list) or len(each) != 3 or any(type(number) is not int for number in each):
            raise UsageError(detail="a range is not a file's number, a begin and an end")
    return [FileRange(*each) for each in value]
