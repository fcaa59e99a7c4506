"""The hub's interface over HTTP: HF_ENDPOINT may be its address, and what is asked for comes from here or from peers.

What a client of the hub makes of an answer decides about it: a connection that breaks may begin a file anew, and a GET
that is answered with 503 has failed for good, in earlier releases. So what is not there yet is waited for; where that
takes long, the client is told to come again (429).
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import weakref
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from engine.net import addresses, sockets
from engine.net.http_server import HttpServer, let_in
from engine.net.web_pages import is_a_pages, is_called_ours
from engine.net.within import within
from p2pstore.endpoint.access import is_ours, plain, read_token, shows, uid_of
from p2pstore.endpoint.arriving import Arriving
from p2pstore.endpoint.mirror import Mirror
from p2pstore.errors import MooncakeError
from p2pstore.hub import documents
from p2pstore.hub.listings import MirroredRepo
from p2pstore.hub.reading import Reading
from p2pstore.hub.repos import AGAIN_SECONDS, NotYet, Repo, RepoNotFound, RevisionNotFound
from p2pstore.hub.routes import Route, parse
from p2pstore.hub.upstream import UpstreamRefused
from p2pstore.origins.gathering import Gathering

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 8.0
"""For an answer to begin; huggingface_hub waits for 10 s."""

SLICE_BYTES = 256 * 1024
"""Handed to the socket at once: what it does not take is copied."""

MAX_READERS = 64
"""Files that are given out at a time, each with up to three chunks in memory; one more is told to come again."""

MAX_BODY_BYTES = 1 << 20
"""Of a request: paths that are asked for."""

SHUTDOWN_SECONDS = 1.0

T = TypeVar("T")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HubServer:
    """The interface of one node. ``address`` is where it listens once it does."""

    def __init__(self, gathering: Gathering, token_file: Path | None = None, name: str = "localhost") -> None:
        """``token_file`` holds what clients must show; ``name`` is what this host is called by who set it up.

        Raises as ``read_token``.
        """
        self.address = ""
        self._name = name
        self._token = read_token(token_file) if token_file is not None else ""
        self._copies, self._repos = gathering.hub.copies, gathering.hub.repos
        self._mirror = Mirror(gathering)
        self._owners: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        self._readers = 0
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._server = HttpServer(app, logger=log, shutdown_seconds=SHUTDOWN_SECONDS, cancels=True)

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening socket, which is closed in the end."""
        host, port = listener.getsockname()[:2]
        self.address = addresses.join(host, port)
        await self._server.start(listener)

    async def close(self) -> None:
        """Stop listening, and end what is under way."""
        await self._server.close()
        await self._mirror.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = await self._refusal(request)
        if refusal:
            raise web.HTTPForbidden(text=refusal, headers=documents.error_headers("", refusal))
        let_in(request)
        try:
            return await handler(request)
        except (RepoNotFound, RevisionNotFound) as error:
            code = documents.REPO_NOT_FOUND if isinstance(error, RepoNotFound) else documents.REVISION_NOT_FOUND
            what = "object is named" if isinstance(error, RepoNotFound) else "version of it is known here as"
            return _refused(404, code, f"no {what} {str(error)!r}")
        except UpstreamRefused as error:
            return _refused(error.status, error.code, str(error))
        except (MooncakeError, NotYet) as error:
            log.info("%s: %s", ascii(request.path), error)
            again = error.seconds if isinstance(error, NotYet) else AGAIN_SECONDS
            return _refused(429, "", str(error), {"Retry-After": str(again)})

    async def _refusal(self, request: web.Request) -> str:
        """Why whoever asks may not read; empty where they may."""
        if self._token:
            known = shows(request.headers.get("Authorization", ""), self._token)
            return "" if known else "the token of this mooncake agent is wanted; set HF_TOKEN"
        host = request.headers.get("Host", "")
        if host and not is_called_ours(host, self._name):
            return f"this mooncake agent is not called {host!r}; ask http://{self.address}"
        if is_a_pages(request.headers):
            return "this mooncake agent is not for web pages"
        transport = request.transport
        if transport is None:
            return "the connection is gone"
        if transport not in self._owners:
            theirs, ours = transport.get_extra_info("peername")[:2], transport.get_extra_info("sockname")[:2]
            local = sockets.is_loopback(plain(theirs[0])) or theirs[0] == ours[0]
            self._owners[transport] = local and is_ours(await asyncio.to_thread(uid_of, theirs, ours))
        return "" if self._owners[transport] else "this mooncake agent is another user's"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        route = parse(request.raw_path)
        if route is None:
            return _refused(404, "", f"mooncake has no {request.path}")
        reads = request.method in {"GET", "HEAD"}
        if not (reads or (request.method == "POST" and route.verb == "paths-info")):
            return _refused(405, "", "objects are read here, not written", {"Allow": "GET, HEAD"})
        repo = await self._soon(self._find(route))
        if route.verb == "resolve":
            return await self._resolve(request, route, repo)
        return _json(await self._document(request, route, repo))

    async def _find(self, route: Route) -> Repo | MirroredRepo:
        """What there is of that name: an object, or what the hub has. Raises as ``Repos.find`` and ``Mirror.find``."""
        try:
            return await self._repos.find(route.name, route.revision)
        except (RepoNotFound, RevisionNotFound) as error:
            try:
                return await self._mirror.find(route)
            except RepoNotFound:
                raise error from None

    async def _oids(self, repo: Repo | MirroredRepo) -> list[str]:
        if isinstance(repo, MirroredRepo):
            return [file.oid for file in repo.listing.files]
        return await self._repos.oids(repo)

    async def _reader(
        self, route: Route, repo: Repo | MirroredRepo, number: int, begin: int, end: int
    ) -> Reading | Arriving:
        if isinstance(repo, MirroredRepo):
            return await self._mirror.reader(route, repo, number, begin, end)
        return Reading(self._copies.of(repo.record, repo.manifest), number, begin, end)

    async def _document(self, request: web.Request, route: Route, repo: Repo | MirroredRepo) -> Any:
        if route.verb == "refs":
            tags = {} if isinstance(repo, MirroredRepo) else await self._repos.tags(route.name)
            return documents.refs(repo.commit, tags)
        blobs = request.query.get("blobs", "").lower() in {"1", "true"}
        if route.verb == "info" and not blobs:
            files = map(repo.file, range(len(repo.paths)))
            return documents.info(route.repo, repo.commit, files, repo.modified)
        oids = await self._soon(self._oids(repo))
        named = [repo.file(number, oid) for number, oid in enumerate(oids)]
        if route.verb == "info":
            return documents.info(route.repo, repo.commit, named, repo.modified, blobs=True)
        if route.verb == "paths-info":
            return documents.paths_info(named, await _paths(request))
        recursive = request.query.get("recursive", "").lower() in {"1", "true"}
        return documents.tree(named, route.path, recursive=recursive)

    async def _resolve(self, request: web.Request, route: Route, repo: Repo | MirroredRepo) -> web.StreamResponse:
        number = repo.number(route.path)
        if number < 0:
            text = f"{route.name} has no file {route.path!r}"
            return _refused(404, documents.ENTRY_NOT_FOUND, text, {"X-Repo-Commit": repo.commit})
        file = repo.file(
            number, "" if isinstance(repo, MirroredRepo) else await self._soon(self._repos.oid(repo, number))
        )
        headers = dict(documents.file_headers(file, repo.commit))
        begin, end, status = _range(request, file.size)
        if status == 416:
            return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{file.size}"})
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - begin
        response.content_type = "application/octet-stream"
        if request.method == "HEAD" or begin == end:
            await response.prepare(request)
            return response
        if self._readers >= MAX_READERS:
            raise NotYet(f"{MAX_READERS} files are being read")
        self._readers += 1
        reading: Reading | Arriving | None = None
        try:
            reading = await self._soon(self._reader(route, repo, number, begin, end))
            await self._soon(reading.first())
            await response.prepare(request)
            await self._send(request, reading, response)
        finally:
            self._readers -= 1
            if reading is not None:
                reading.close()
        return response

    async def _send(self, request: web.Request, reading: Reading | Arriving, response: web.StreamResponse) -> None:
        try:
            async with aclosing(reading.pieces()) as pieces:
                async for piece in pieces:
                    for at in range(0, len(piece), SLICE_BYTES):
                        await response.write(piece[at : at + SLICE_BYTES])
        except MooncakeError as error:
            log.warning("%s is given out no further: %s", ascii(request.path), error)
            if request.transport is not None:  # it is not whole, and must not look so
                request.transport.abort()
        except ConnectionResetError:
            log.debug("%s: the client went away", ascii(request.path))

    async def _soon(self, work: Awaitable[T]) -> T:
        """What comes of it. Raises ``NotYet`` where that takes long; what others wait for, too, goes on."""
        try:
            return await within(work, PATIENCE_SECONDS)
        except asyncio.TimeoutError:
            raise NotYet("it is not here yet") from None


def _range(request: web.Request, size: int) -> tuple[int, int, int]:
    """Where what is asked for begins and ends, and the status of the answer. What is no single range counts as none."""
    try:
        asked = request.http_range
    except ValueError:
        return 0, size, 200
    if asked.start is None and asked.stop is None:
        return 0, size, 200
    begin = asked.start or 0
    if begin < 0:
        return max(0, size + begin), size, 206 if size else 416
    if begin >= size:
        return 0, 0, 416
    return begin, min(size, size if asked.stop is None else asked.stop), 206


async def _paths(request: web.Request) -> list[str]:
    """The paths that a request asks about: a form, or JSON."""
    if request.content_type == "application/json":
        try:
            given = (await request.json())["paths"]
        except (ValueError, KeyError, TypeError, RecursionError):
            given = []
        return [str(path) for path in given] if isinstance(given, list) else [str(given)]
    return [str(path) for path in (await request.post()).getall("paths", [])]


def _json(value: Any) -> web.Response:
    return web.Response(body=json.dumps(value, separators=(",", ":")).encode(), content_type="application/json")


def _refused(status: int, code: str, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """An answer that says in clients' terms what is wrong."""
    more = {**documents.error_headers(code, text), **(headers or {})}
    return web.Response(body=json.dumps({"error": text}).encode(), status=status, headers=more,
                        content_type="application/json")  # fmt: skip
