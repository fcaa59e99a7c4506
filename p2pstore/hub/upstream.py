"""The real hub, or a mirror of it, as this node reads it: what a repository has, and files as streams of bytes.

Plain HTTP, without Xet: whoever asks us would otherwise be sent past us. The token is the one that huggingface_hub
knows, where that is installed; it goes to the upstream alone, never to where that redirects.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from p2pstore.errors import OriginDiffers, OriginRefused, OriginUnavailable, OriginUnsuited
from p2pstore.hub.documents import REPO_NOT_FOUND, RepoFile, is_commit
from p2pstore.hub.listing import MAX_LISTING_BYTES, Listing, paths_fault
from p2pstore.hub.ranged import BROKEN, answered, blocks_of, fault_words, range_of
from p2pstore.hub.routes import MODELS, Route
from p2pstore.objects.oid import GIT, SHA256, is_oid

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""For a connection to the upstream."""

SILENCE_SECONDS = 30.0
"""Without a byte, after which a connection counts as broken."""

MAX_KNOWN = 64
"""Repositories of which is remembered whether parts of their files are given out."""

MAX_PAGES = 1000
"""Of a listing."""

MAX_WORDS = 500
"""Characters of what the upstream says of a refusal."""


class UpstreamRefused(OriginRefused):
    """The upstream said no. ``status`` and ``code`` are as the hub has them."""

    status = 0
    code = ""


class Upstream:
    """A client of one hub. Close it in the end."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        self._session: aiohttp.ClientSession | None = None
        self._ranges: dict[tuple[str, str, str], bool] = {}

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def listing(self, kind: str, repo: str, revision: str) -> Listing:
        """The files of a repository at a revision. Raises ``UpstreamRefused`` or ``OriginUnavailable``."""
        told = await self._json(f"/api/{kind}/{quote(repo)}/revision/{quote(revision, safe='')}")
        commit = told.get("sha") if isinstance(told, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            raise self._away(f"it tells no commit of {repo}")
        entries: list[Any] = []
        page: str | None = f"/api/{kind}/{quote(repo)}/tree/{commit}?recursive=true&expand=false"
        for _ in range(MAX_PAGES):
            if page is None:
                break
            async with self._get(page) as answer:
                found = await self._body(answer)
                following = answer.links.get("next")
                page = str(following["url"]) if following else None
            entries += found if isinstance(found, list) else []
        found = [_file(entry) for entry in entries if isinstance(entry, dict) and entry.get("type") == "file"]
        files = [each for each in found if each is not None]
        if len(files) != len(found):
            raise self._away(f"it tells no names by content of what is in {repo}")
        fault = paths_fault([file.path for file in files])
        if fault:
            raise self._away(f"what it says of the files of {repo} cannot be: {fault}")
        ways = tuple(SHA256 if file.lfs else GIT for file in files)
        return Listing(commit, _when(told.get("lastModified")), tuple(files), ways)

    async def stream(self, route: Route, commit: str, size: int, begin: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a file of a commit from ``begin`` to ``end``; ``size`` is that of all of it.

        Raises as ``listing``, also in the middle; ``OriginDiffers`` where the file has another size, and
        ``OriginUnsuited`` where what is sent is no part that was asked for.
        """
        async with self._get(_resolve(route, commit), range_of(begin, end, size)) as answer:
            try:
                first, told = answered(answer)
            except ValueError:
                detail = f"it does not tell which part of {route.path!r} it sends"
                raise OriginUnsuited(origin=self.url, detail=detail) from None
            if told not in {None, size}:
                detail = f"{route.path!r} was to have {size} bytes, and it sends one of {told}"
                raise OriginDiffers(origin=self.url, detail=detail)
            if first not in {0, begin}:
                detail = f"it sends another part of {route.path!r} than it was asked for"
                raise OriginUnsuited(origin=self.url, detail=detail)
            try:
                async for block in blocks_of(answer, begin - first, end - begin):
                    yield block
            except BROKEN as error:
                raise self._away(f"it broke off: {fault_words(error)}") from None

    async def gives_ranges(self, route: Route, commit: str) -> bool:
        """Whether a part of a file of a commit is given out, too. Raises as ``listing``. Asked once of a repository."""
        key = route.kind, route.repo, commit
        if key not in self._ranges:
            async with self._get(_resolve(route, commit), {"Range": "bytes=0-0"}) as answer:
                found = answer.status == 206
            while len(self._ranges) >= MAX_KNOWN:
                del self._ranges[next(iter(self._ranges))]
            self._ranges[key] = found
        return self._ranges[key]

    async def _json(self, path: str) -> Any:
        async with self._get(path) as answer:
            return await self._body(answer)

    def _away(self, detail: str) -> OriginUnavailable:
        return OriginUnavailable(origin=self.url, detail=detail)

    @asynccontextmanager
    async def _get(
        self, path: str, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, trust_env=True, auto_decompress=False)
        url = URL(path if "://" in path else self.url + path, encoded=True)
        token = await asyncio.to_thread(known_token)
        given = {"Accept-Encoding": "identity", "User-Agent": "mooncake", **(headers or {})}
        if token and url.origin() == URL(self.url).origin():
            given["Authorization"] = f"Bearer {token}"
        try:
            async with self._session.get(url, headers=given) as answer:
                await self._check(answer)
                yield answer
        except BROKEN as error:
            raise self._away(fault_words(error)) from None

    async def _body(self, answer: aiohttp.ClientResponse) -> Any:
        data = bytearray()
        async for block in answer.content.iter_any():
            data += block
            if len(data) > MAX_LISTING_BYTES:
                raise self._away("it tells too much of a repository")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self._away("it tells something else than JSON") from None

    async def _check(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status in {200, 206}:
            return
        code = answer.headers.get("X-Error-Code", "")
        text = answer.headers.get("X-Error-Message") or answer.reason or str(answer.status)
        if answer.status == 429 or answer.status >= 500:
            raise self._away(f"it answers {answer.status}: {text[:MAX_WORDS]}")
        if answer.status == 401 and not code:
            code = REPO_NOT_FOUND  # the hub says so of what does not exist, too
        refused = UpstreamRefused(origin=self.url, detail=f"{answer.status}: {text[:MAX_WORDS]}")
        refused.status, refused.code = answer.status, code
        raise refused


def _resolve(route: Route, commit: str) -> str:
    where = route.repo if route.kind == MODELS else f"{route.kind}/{route.repo}"
    return f"/{quote(where)}/resolve/{commit}/{quote(route.path)}"


def known_token() -> str | None:
    """The token of this user's for the hub, as huggingface_hub finds it; None without one, or without the package."""
    try:
        from huggingface_hub import get_token  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        return None
    with contextlib.suppress(Exception):  # whatever is wrong with the file: then we are anonymous
        return get_token()
    return None


def _file(entry: dict[str, Any]) -> RepoFile | None:
    """A file of the hub's tree; None where it has no name by content."""
    path, size, lfs = entry.get("path"), entry.get("size"), entry.get("lfs")
    oid = lfs.get("oid") if isinstance(lfs, dict) else entry.get("oid")
    way = SHA256 if isinstance(lfs, dict) else GIT
    if not isinstance(path, str) or type(size) is not int or size < 0 or not is_oid(oid, way):
        return None
    return RepoFile(path, size, str(oid), lfs=way == SHA256)


def _when(text: object) -> float:
    """Seconds since the epoch of a time as the hub writes it; 0 for what is none."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
