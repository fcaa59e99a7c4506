"""Requests to a peer's control plane: signed with the cluster's secret, bounded, and failing with errors of the tree.

A signature names the *realm*, which is the peer's process: each peer tells its own with every answer, and it is
remembered. Where a request is refused, the secret before is tried, and then the realm that the refusal told, since the
peer may have been started again.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from engine.net import addresses
from engine.net.within import within
from p2pstore.cluster.auth import CLOCK, HEADER, MAX_SKEW, REALM_HEADER, REFUSAL_HEADER, Signer
from p2pstore.cluster.line_connection import upgrade
from p2pstore.cluster.peer_talk import SILENCE_SECONDS
from p2pstore.cluster.secret import ClusterSecret, cluster_secret
from p2pstore.errors import (
    ClocksDiffer,
    PeerBusy,
    PeerHasNot,
    PeerNameUnknown,
    PeerStalled,
    PeerUnreachable,
    RemoteError,
    RemoteProtocolError,
    SecretRefused,
)
from p2pstore.objects.file_system import words

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""For a whole short answer."""

OK, FORBIDDEN = 200, 403

MAX_REALMS = 4096
"""Nodes whose realm is remembered; of others it is asked again."""

_REALM = re.compile(r"[0-9a-f]{1,64}")

_TALK = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=None)
"""Of what we say: the answer comes when we have nothing more to say. Whether the peer is there its own news tell."""

_FAILURES = (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError)
"""What aiohttp raises; ``ValueError`` is for an invalid control address."""


Body = Callable[[], AsyncIterator[bytes]]
"""What we say, as long as it takes; begun again for each secret that is tried."""


class PeerRequests:
    """Requests to any peer, for one event loop."""

    def __init__(self, secret: bytes | ClusterSecret | None) -> None:
        self._secret = cluster_secret(secret)
        self._signer = Signer()
        self._realms: dict[str, str] = {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        # Each get follows up to 16 sources over two connections each that stay; aiohttp's own limit of 100 in all would
        # have further requests wait for their end. How many gets run at once is bounded elsewhere.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=timeout,
            read_bufsize=1 << 16,
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    @asynccontextmanager
    async def stream(
        self, control: str, path: str, *, what: str, method: str = "GET", body: Body | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body is read as it comes, each part within ``SILENCE_SECONDS`` unless there is a ``body``.

        Raises ``PeerHasNot``, which calls it ``what``, ``PeerBusy``, ``PeerUnreachable``, ``PeerStalled``,
        ``PeerNameUnknown``, ``SecretRefused``, ``ClocksDiffer`` or ``RemoteProtocolError``.
        """
        try:
            async with self._signed(control, path, method, body) as answer:
                _check(control, answer, what)
                yield answer
        except _FAILURES as error:
            raise _unreachable(control, error) from None

    async def whole(
        self,
        control: str,
        path: str,
        limit: int,
        *,
        what: str = "it",
        seconds: float | None = None,
        method: str = "GET",
    ) -> bytes:
        """An answer of ``limit`` bytes at most, within ``seconds``; by default ``ANSWER_SECONDS``.

        Raises as ``stream``.
        """

        async def fetch() -> bytes:
            async with self._signed(control, path, method) as answer:
                _check(control, answer, what)
                parts = []
                left = limit
                async for part in answer.content.iter_any():
                    left -= len(part)
                    if left < 0:
                        raise RemoteProtocolError(peer=control, detail=f"an answer longer than {limit} bytes")
                    parts.append(part)
                return b"".join(parts)

        try:
            return await within(fetch(), ANSWER_SECONDS if seconds is None else seconds)
        except _FAILURES as error:
            raise _unreachable(control, error) from None

    async def upgrade(self, control: str, path: str) -> tuple[asyncio.Transport, bytes] | None:
        """Lines both ways instead of an answer (see ``p2pstore.cluster.line_connection``), and what came of them.

        None where the peer answers otherwise, or cannot be reached: ``stream`` says why. Raises ``PeerStalled``.
        """
        headers = {"Host": control}
        try:
            if self._secret is not None:
                secret, *_ = await self._secret.good()
                headers[HEADER] = self._signer.sign(secret, "GET", path, await self._realm(control))
            host, port = addresses.parse(control)
            return await upgrade(host, port, path, headers, connect=CONNECT_SECONDS, patience=SILENCE_SECONDS)
        except asyncio.TimeoutError as error:
            raise _unreachable(control, error) from None
        except _FAILURES:
            return None

    async def _realm(self, control: str) -> str:
        """The realm of a node, which is asked for it unless it is known."""
        realm = self._realms.get(control, "")
        if not realm:
            async with self._ask("GET", control, "/v1/health", {}) as answer:
                realm = self._heard(control, answer)
        return realm

    @asynccontextmanager
    async def _signed(
        self, control: str, path: str, method: str = "GET", body: Body | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One answer; where there is a secret, to a request that was signed with one that the peer takes."""
        if self._secret is None:
            async with self._ask(method, control, path, {}, body) as answer:
                yield answer
            return
        realm = await self._realm(control)
        tries = list(await self._secret.good())
        while True:
            secret = tries.pop(0)
            signature = self._signer.sign(secret, method, path, realm)
            async with self._ask(method, control, path, {HEADER: signature}, body) as answer:
                if answer.status != FORBIDDEN or answer.headers.get(REFUSAL_HEADER) == CLOCK:
                    yield answer
                    return
                if not tries:
                    now = self._heard(control, answer)
                    if now == realm:
                        yield answer
                        return
                    realm, tries = now, list(await self._secret.good())  # it was started again

    def _ask(
        self,
        method: str,
        control: str,
        path: str,
        headers: dict[str, str],
        body: Body | None = None,
    ) -> Any:
        url = URL(f"http://{control}{path}", encoded=True)
        if body is None:
            return self._session.request(method, url, headers=headers, allow_redirects=False)
        return self._session.request(method, url, headers=headers, data=body(), allow_redirects=False, timeout=_TALK)

    def _heard(self, control: str, answer: aiohttp.ClientResponse) -> str:
        """The realm of a node, of which it tells; empty where it has none, since it has no secret."""
        realm = answer.headers.get(REALM_HEADER, "")
        if not _REALM.fullmatch(realm):
            realm = ""
        while len(self._realms) >= MAX_REALMS:
            del self._realms[next(iter(self._realms))]
        self._realms[control] = realm
        return realm


def _check(control: str, answer: aiohttp.ClientResponse, what: str) -> None:
    """Raise what a status other than 200 means."""
    if answer.status == 404:
        raise PeerHasNot(peer=control, what=what)
    if answer.status in {401, FORBIDDEN}:
        if answer.headers.get(REFUSAL_HEADER) == CLOCK:
            raise ClocksDiffer(peer=control, seconds=MAX_SKEW)
        raise SecretRefused(peer=control)
    if answer.status == 503:
        raise PeerBusy(peer=control)
    if answer.status != OK:
        raise RemoteProtocolError(peer=control, detail=f"it answered {answer.status}")


def _unreachable(control: str, error: Exception) -> RemoteError:
    if isinstance(error, (asyncio.TimeoutError, aiohttp.ServerTimeoutError)):
        return PeerStalled(peer=control, seconds=SILENCE_SECONDS)
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, socket.gaierror):
            return PeerNameUnknown(peer=control, host=error.host, detail=words(error.os_error))
        number = error.os_error.errno or 0  # asyncio replaces the system's words by its own
        return PeerUnreachable(
            peer=control, detail=os.strerror(number).lower() if number > 0 else words(error.os_error)
        )
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        return PeerUnreachable(peer=control, detail="it closed the connection")
    if isinstance(error, OSError):
        return PeerUnreachable(peer=control, detail=words(error))
    if isinstance(error, UnicodeError):  # of the rules for names in other alphabets
        host = control.rpartition(":")[0]
        return PeerNameUnknown(peer=control, host=host, detail="no host can be called so")
    return PeerUnreachable(peer=control, detail=str(error) or type(error).__name__)
