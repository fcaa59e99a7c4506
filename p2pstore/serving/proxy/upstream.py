"""The proxy's side of its connections to instances: requests, probes, and what their failures mean."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from engine.net.within import within
from p2pstore.serving.proxy.failures import Answer
from p2pstore.serving.proxy.fleet import Member
from p2pstore.serving.proxy.health import PROBE_TIMEOUT_SECONDS
from p2pstore.serving.proxy.options import MAX_ANSWER_BYTES, Options

KEEPALIVE_SECONDS = 3.0
"""An idle connection is kept for so long: engines close theirs after 5 seconds (vLLM, uvicorn)."""

NAMES_SECONDS = 10
"""How long the addresses of a host's name are believed."""

MAX_PROBE_BYTES = 1 << 20
"""Of an answer to a probe."""

END_SECONDS = 1.0
"""For the end of an answer all of whose events have come."""

TOKENIZE_SECONDS = 2.0
"""For an instance to take a prompt apart; then it is placed without its prefixes."""

MAX_RANKS = 1024
"""Of one prefill instance."""

BUSY = 429
"""The status of an instance that has too much to do."""

OWN_HEADERS = {"User-Agent": "mooncake-proxy", "Accept-Encoding": "identity"}
"""Of each request, in place of aiohttp's, which name its version, and ask for what is compressed."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-encoding",
        "server",
        "date",
    }
)
"""Headers of an answer that are about its connection, and are not passed on."""


class InstanceFailed(Exception):
    """An instance did not do what it was asked; others may.

    ``refused``: nobody listens there. ``answer``: what it said, where it said something.
    """

    def __init__(self, member: Member, detail: str, *, refused: bool = False, answer: Answer | None = None) -> None:
        super().__init__(f"{member.name}: {detail}")
        self.member = member
        self.detail = detail
        self.refused = refused
        self.answer = answer

    @property
    def busy(self) -> bool:
        """Whether all that is wrong is that it has too much to do."""
        return self.answer is not None and self.answer.status == BUSY


class Problem(Exception):
    """A probe found something wrong. ``refused`` as above."""

    def __init__(self, detail: str, *, refused: bool = False) -> None:
        super().__init__(detail)
        self.refused = refused


class Upstream:
    """One session to all instances: connections are kept, and their number is bounded by that of the requests."""

    def __init__(self, options: Options) -> None:
        self._model = options.model
        self._key = options.engine_key
        self._ends: set[asyncio.Task[None]] = set()
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=NAMES_SECONDS, happy_eyeballs_delay=0.1
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=OWN_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=options.connect_seconds),
        )

    async def close(self) -> None:
        """Close every connection."""
        for task in list(self._ends):
            task.cancel()
        await asyncio.gather(*self._ends, return_exceptions=True)
        await self._session.close()

    def read_end(self, answer: aiohttp.ClientResponse) -> None:
        """Of an answer all is there but its end: read that, so that the connection can be used again.

        Nobody waits for it, and an end that does not come costs the connection, and no more.
        """
        if answer.content.is_eof():
            return
        task = asyncio.ensure_future(_read_end(answer))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def post(self, member: Member, path: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Ask, and return the answer once its headers are there. Raises ``InstanceFailed``."""
        url = _url(member, path)
        try:
            return await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        except aiohttp.ClientConnectorError as error:
            raise broken(member, error) from None
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            pass  # perhaps a kept connection that it was about to close: nothing of an answer had come
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise broken(member, error) from None
        try:
            return await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise broken(member, error) from None

    async def get(self, member: Member, path: str, headers: Mapping[str, str]) -> Answer:
        """A short answer, of any status. Raises ``InstanceFailed``."""
        try:
            status, body, found = await self._get(member.place.url + path, headers)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, Problem) as error:
            raise broken(member, error) from None
        return Answer(status, body, found)

    async def tokens(self, member: Member, body: bytes, headers: Mapping[str, str]) -> list[int] | None:
        """A prompt in tokens, by an instance's tokenizer; None where it does not say in time."""
        timeout = aiohttp.ClientTimeout(total=TOKENIZE_SECONDS)
        url = _url(member, "/tokenize")
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                whole = await read(answer, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return None
        return token_ids(whole or b"") if answer.status == 200 else None

    async def check(self, member: Member, *, thorough: bool) -> None:
        """Probe an instance; ``thorough``: whether it serves our model, too. Raises ``Problem``."""
        try:
            status, _, _ = await self._get(member.place.url + "/health", {})
            if status not in {200, 404}:
                raise Problem(f"/health answers with status {status}")
            if thorough or status == 404:
                await self._check_model(member)
            if member.place.bootstrap_url is not None:
                member.ranks = await self._ranks(member.place.bootstrap_url)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise Problem(reason(error), refused=is_refusal(error)) from None

    async def _check_model(self, member: Member) -> None:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        status, body, _ = await self._get(member.place.url + "/v1/models", headers)
        if status in {401, 403}:
            raise Problem(f"/v1/models answers with status {status}: set OPENAI_API_KEY to a key that it takes")
        if status != 200:
            raise Problem(f"/v1/models answers with status {status}")
        served = models(body)
        if not any(_same_model(each, self._model) for each in served):
            raise Problem(f"it serves {', '.join(served[:4]) or 'no model'}, not {self._model}")

    async def _ranks(self, url: str) -> tuple[tuple[str, str], ...]:
        try:
            status, body, _ = await self._get(url + "/query", {})
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise Problem(f"its bootstrap server {url} cannot be asked: {reason(error)}") from None
        found = ranks(body) if status == 200 else ()
        if not found:
            raise Problem(f"its bootstrap server {url} answers with no engine (status {status})")
        return found

    async def _get(self, url: str, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_SECONDS)
        async with self._session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as answer:
            body = await read(answer, MAX_PROBE_BYTES)
            if body is None:
                raise Problem("it answers without an end")
            return answer.status, body, passed_on(answer)


def _url(member: Member, path: str) -> URL:
    found = member.urls.get(path)
    if found is None:
        found = member.urls[path] = URL(member.place.url + path)
    return found


async def _read_end(answer: aiohttp.ClientResponse) -> None:
    try:
        await within(read(answer, 0), END_SECONDS)
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
        pass  # it is closed, then
    finally:
        answer.close()


async def read(answer: aiohttp.ClientResponse, most: int) -> bytes | None:
    """A whole body, or None where it is longer."""
    parts, size = [], 0
    while part := await answer.content.readany():
        parts.append(part)
        size += len(part)
        if size > most:
            return None
    return b"".join(parts)


def passed_on(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers of an answer that are the client's business."""
    return {key: value for key, value in answer.headers.items() if key.lower() not in HOP_BY_HOP}


def models(body: bytes) -> list[str]:
    """The ids in the answer of ``/v1/models``."""
    try:
        data = json.loads(body)["data"]
        return [one["id"] for one in data if isinstance(one["id"], str)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def ranks(body: bytes) -> tuple[tuple[str, str], ...]:
    """Of a bootstrap server's answer: each data-parallel rank, and the id of its engine."""
    try:
        found: Any = json.loads(body)
        pairs = [(str(int(rank)), one["engine_id"]) for rank, one in found.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
    return tuple(pairs[:MAX_RANKS]) if all(isinstance(engine, str) for _, engine in pairs) else ()


def token_ids(body: bytes) -> list[int] | None:
    """Those in the answer of ``/tokenize``."""
    try:
        found = json.loads(body)["tokens"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(found, list) or not all(type(each) is int and 0 <= each < 2**31 for each in found):
        return None
    return found


def broken(member: Member, error: BaseException) -> InstanceFailed:
    """What an error of a connection means."""
    return InstanceFailed(member, reason(error), refused=is_refusal(error))


def reason(error: BaseException) -> str:
    """An error of a connection in words."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno  # below 0 for a name that has no address
        return f"cannot connect: {os.strerror(number) if number and number > 0 else error.os_error}"
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "its answer broke off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what it answers is no HTTP"
    return str(error) or type(error).__name__


def is_refusal(error: BaseException) -> bool:
    """Whether it proves that nobody listens."""
    if not isinstance(error, aiohttp.ClientConnectorError) or isinstance(error, aiohttp.ClientSSLError):
        return False
    cause = error.os_error
    return cause.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(cause)


def _same_model(served: str, wanted: str) -> bool:
    """By name, or by the last part of a path: engines that load the same files may lie in different directories."""
    return served == wanted or served.rstrip("/").rpartition("/")[2] == wanted.rstrip("/").rpartition("/")[2]
