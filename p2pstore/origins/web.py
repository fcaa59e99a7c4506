"""One file of a web server as an origin: read by ranges, each of the version that it had at the beginning.

Who must show something to read it has that in the ``~/.netrc`` of the agent's user, which aiohttp reads; it goes to
that host alone, and never to where that redirects. A redirect's address may be signed, so that none is ever told.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from p2pstore.errors import OriginChanged, OriginNotFound, OriginRefused, OriginUnavailable, OriginUnsuited
from p2pstore.hub.ranged import BROKEN, answered, blocks_of, fault_words, range_of
from p2pstore.objects.selection import Selection
from p2pstore.origins.address import Place
from p2pstore.origins.source import OriginFile

CONNECT_SECONDS = 10.0
"""For a connection."""

SILENCE_SECONDS = 30.0
"""Without a byte, after which a connection counts as broken."""

MAX_WORDS = 200
"""Characters of what a server says of a refusal."""

_DIGEST = re.compile(r"(sha-256|md5)=:?([A-Za-z0-9+/]+=*):?", re.IGNORECASE)


class WebSource:
    """See ``Source``."""

    reads = True
    revision = ""

    def __init__(self, place: Place) -> None:
        self._shown = str(place)
        self._url = place.url
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        self._session: aiohttp.ClientSession | None = None
        self._asking = 0
        self._closing = False

    async def sure(self, file: OriginFile) -> bool:  # noqa: ARG002 - of any
        """See ``Source.sure``."""
        return True

    async def close(self) -> None:
        """See ``Source.close``. A session that is closed leaves whoever reads an answer waiting: they read on first."""
        self._closing = True
        if self._session is not None and not self._asking:
            await self._session.close()

    async def files(self, selection: Selection) -> Sequence[OriginFile]:  # noqa: ARG002 - it is one file
        """See ``Source.files``."""
        async with self._ask("HEAD", {"Want-Repr-Digest": "sha-256=1"}) as answer:
            self._check(answer)
            length = answer.headers.get("Content-Length", "")
            if not length.isdigit():
                raise OriginUnsuited(origin=self._shown, detail="it does not tell how long it is")
            etag, modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
            ranges = answer.headers.get("Accept-Ranges", "").strip().lower() == "bytes"
            strong = "" if etag.startswith("W/") else etag
            validator = strong or ("" if etag else modified)
            size, hashes = int(length), _hashes(answer.headers)
            if etag or modified:
                return [OriginFile("", self._url, size, etag or modified, validator, hashes, ranges)]
            # Nobody could tell what is there from what was there, or will be: this reading stands alone.
            once = f"untold {secrets.token_hex(8)}"
            return [OriginFile("", self._url, size, once, "", hashes, ranges=False, resumes=False)]

    async def stream(self, file: OriginFile, begin: int, end: int) -> AsyncGenerator[bytes, None]:
        """See ``Source.stream``."""
        headers = range_of(begin, end, file.size)
        if headers and file.validator:
            headers["If-Range"] = file.validator
        async with self._ask("GET", headers) as answer:
            skipped = self._compare(file, answer, begin)
            try:
                async for block in blocks_of(answer, skipped, end - begin):
                    yield block
            except BROKEN as error:
                raise self._away(f"it broke off: {fault_words(error)}") from None

    def _compare(self, file: OriginFile, answer: aiohttp.ClientResponse, begin: int) -> int:
        """How many bytes of an answer come before those that were asked for. Raises what speaks against it."""
        if answer.status in {412, 416}:
            raise OriginChanged(origin=self._shown, detail="it is shorter now, or another")
        self._check(answer)
        told = answer.headers.get("ETag" if file.version.endswith('"') else "Last-Modified", "")
        if told and told != file.version:
            raise OriginChanged(origin=self._shown, detail=f"its version was {file.version}, and is {told}")
        try:
            first, size = answered(answer)
        except ValueError:
            raise OriginUnsuited(origin=self._shown, detail="it does not tell which part it sends") from None
        if answer.status == 206 and first != begin:
            raise OriginUnsuited(origin=self._shown, detail="it sends another range than it was asked for")
        if size not in {None, file.size}:
            raise OriginChanged(origin=self._shown, detail=f"it had {file.size} bytes, and has {size}")
        return begin - first

    @asynccontextmanager
    async def _ask(self, method: str, headers: Mapping[str, str]) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(timeout=self._timeout, trust_env=True, auto_decompress=False)
        given = {"Accept-Encoding": "identity", "User-Agent": "mooncake", **headers}
        self._asking += 1
        try:
            async with self._session.request(method, URL(self._url), headers=given, allow_redirects=True) as answer:
                yield answer
        except BROKEN as error:
            raise self._away(fault_words(error)) from None
        finally:
            self._asking -= 1
            if self._closing:
                await self.close()

    def _check(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status in {200, 206}:
            return
        said = f"it answers {answer.status}: {(answer.reason or '')[:MAX_WORDS]}"
        if answer.status in {408, 425, 429} or answer.status >= 500:
            raise self._away(said)
        if answer.status in {404, 410}:
            raise OriginNotFound(origin=self._shown, detail=said)
        raise OriginRefused(origin=self._shown, detail=said)

    def _away(self, detail: str) -> OriginUnavailable:
        return OriginUnavailable(origin=self._shown, detail=detail)


def _hashes(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What a server says of a file's hashes: RFC 9530, RFC 3230, RFC 1864, and Google's own."""
    texts = [headers.get(name, "") for name in ("Repr-Digest", "Digest", "x-goog-hash")]
    texts.append(f"md5={headers.get('Content-MD5', '')}")
    found: dict[str, str] = {}
    for kind, text in (match for each in texts for match in _DIGEST.findall(each)):
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        name = kind.lower().replace("-", "")
        if len(data) == {"sha256": 32, "md5": 16}[name]:
            found.setdefault(name, data.hex())
    return tuple(found.items())
