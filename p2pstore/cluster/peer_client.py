"""Asking a peer's control plane: who it is, what a name stands for, a manifest, and which chunks it has."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from engine.protocol.key import is_key
from p2pstore.cluster.auth import CLOCK, HEADER, MAX_SKEW, REALM_HEADER, REFUSAL_HEADER, Signer
from p2pstore.cluster.news import Queued, Shared
from p2pstore.cluster.records import MAX_RECORD_BYTES, NodeRecord, ObjectRecord, decode
from p2pstore.cluster.secret import ClusterSecret, cluster_secret
from p2pstore.cluster.words import MAX_NUMBER
from p2pstore.errors import (
    ClocksDiffer,
    PeerBusy,
    PeerHasNot,
    PeerNameUnknown,
    PeerStalled,
    PeerUnreachable,
    PeerWithdrew,
    RemoteError,
    RemoteProtocolError,
    SecretRefused,
)
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.file_system import words
from p2pstore.objects.manifest import MAX_MANIFEST_BYTES, Manifest, parse
from p2pstore.objects.oid import is_oid
from p2pstore.swarm.gateway import MAX_TERM, MAX_TOKEN, SHARES, Claim, Rank
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.pace import MAX_LEAD, MAX_PLACES
from p2pstore.swarm.rarity import RUN_CHUNKS

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""For a whole short answer."""

OID_SECONDS = 15.0
"""For what a file is called by its content: a peer says sooner that it is still reading."""

CHECK_SECONDS = 60.0
"""For a peer to try every way to us."""

HEARTBEAT_SECONDS = 3.0
"""A peer sends an empty line so often when it has no news of a replica."""

SILENCE_SECONDS = 4 * HEARTBEAT_SECONDS
"""After so long without a line the peer counts as gone."""

MAX_LINE_BYTES = 4 << 20
"""A line of the availability stream: a bitmap of 16 million chunks fits."""


OK, FORBIDDEN = 200, 403

MAX_REALMS = 4096
"""Nodes whose realm is remembered; of others it is asked again."""

_REALM = re.compile(r"[0-9a-f]{1,64}")

MAX_VERSIONS_BYTES = 1 << 20
"""Of the records of all versions of a name that one node holds."""

MAX_WHY = 300
"""Characters of a peer's reason."""

MAX_SAMPLE_BYTES = 64 << 20
"""Of what a peer offers to try a way with."""

MAX_KEY = 64
"""Characters of the key that a peer knows a listener by."""

MAX_REPEATS = 4
"""How often one line may tell of each chunk: twice happens, when a second copy of the object becomes whole."""


_TALK = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=None)
"""Of what we say: the answer comes when we have nothing more to say. Whether the peer is there its own news tell."""

_FAILURES = (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError)
"""What aiohttp raises; ``ValueError`` is for an invalid control address."""


@dataclass(frozen=True)
class Availability:
    """The first news of a replica: its address in the peer's segment, and what the peer has.

    ``key`` is what the peer's data plane wants to be shown, empty where it serves everybody. ``listener`` is what the
    peer knows us by; ``shared`` is as in ``Shared``. ``grants``: it grants, to who speaks to it (``say``).
    """

    address: int
    have: Bitmap
    key: str = field(default="", repr=False)
    listener: str = ""
    shared: bool = False
    grants: bool = False


class PeerClient:
    """A client of other nodes' control planes, for one event loop."""

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

    async def node(self, control: str) -> NodeRecord:
        """The record of the node at that control address."""
        record = decode(NodeRecord, await self._body(control, "/v1/peer", MAX_RECORD_BYTES))
        if record is None:
            raise RemoteProtocolError(peer=control, detail="its node record does not parse")
        return record

    async def key(self, control: str) -> str:
        """What the data plane of the node at that control address wants to be shown; empty for nothing."""
        try:
            answer = json.loads(await self._body(control, "/v1/key", MAX_RECORD_BYTES))
        except PeerHasNot:  # an older version, which has none
            return ""
        except (ValueError, RecursionError):
            answer = None
        return _key(control, answer if isinstance(answer, dict) else {"key": None})

    async def sample(self, control: str) -> tuple[int, int] | None:
        """Address and length of bytes to try a way to the peer with; None where it has none, being older."""
        try:
            value = json.loads(await self._body(control, "/v1/sample", MAX_RECORD_BYTES))
        except PeerHasNot:
            return None
        except (ValueError, RecursionError):
            value = None
        found = (value.get("address"), value.get("length")) if isinstance(value, dict) else (None, None)
        address, length = found
        if type(address) is not int or type(length) is not int:
            raise RemoteProtocolError(peer=control, detail="its sample does not parse")
        if not (0 < address < 1 << 64 and 0 < length <= MAX_SAMPLE_BYTES):
            raise RemoteProtocolError(peer=control, detail="a sample that is none")
        return address, length

    async def name(self, control: str, name: str) -> ObjectRecord:
        """What a name stands for at that node. Raises ``PeerHasNot``."""
        body = await self._body(control, f"/v1/names?name={quote(name, safe='')}", MAX_RECORD_BYTES, what=repr(name))
        record = decode(ObjectRecord, body)
        if record is None:
            raise RemoteProtocolError(peer=control, detail="its object record does not parse")
        return record

    async def versions(self, control: str, name: str) -> list[ObjectRecord]:
        """All that a node holds of a name. Raises ``PeerHasNot``, of one of an earlier version of this program, too."""
        body = await self._body(
            control, f"/v1/versions?name={quote(name, safe='')}", MAX_VERSIONS_BYTES, what=repr(name)
        )
        found = [decode(ObjectRecord, line) for line in body.splitlines()]
        if not all(found):
            raise RemoteProtocolError(peer=control, detail="its object records do not parse")
        return [record for record in found if record is not None]

    async def manifest(self, control: str, digest: str) -> Manifest:
        """The manifest with that digest, checked. Raises ``PeerHasNot`` or ``BadManifest``."""
        data = await self._body(control, f"/v1/manifests/{digest}", MAX_MANIFEST_BYTES, what=f"manifest {digest[:12]}")
        return await asyncio.to_thread(parse, data, peer=control, digest=digest)

    async def check_back(self, control: str, ours: str) -> list[Any]:
        """What the peer found when it tried each way to our control address ``ours``; documents, unchecked."""
        body = await self._body(
            control, f"/v1/paths?control={quote(ours, safe='')}", MAX_RECORD_BYTES, what="checks", seconds=CHECK_SECONDS
        )
        try:
            checks = json.loads(body)["checks"]
        except (ValueError, KeyError, TypeError, RecursionError):
            checks = None
        if not isinstance(checks, list):
            raise RemoteProtocolError(peer=control, detail="its checks do not parse")
        return checks

    async def count(self, control: str, digest: str) -> int:
        """How many chunks of an object the peer has. Raises ``PeerHasNot``."""
        body = await self._body(control, f"/v1/replicas/{digest}/count", MAX_RECORD_BYTES, what="the object")
        try:
            count = json.loads(body)["chunks"]
        except (ValueError, KeyError, TypeError, RecursionError):
            count = None
        if type(count) is not int or count < 0:
            raise RemoteProtocolError(peer=control, detail="its count does not parse")
        return count

    async def oid(self, control: str, digest: str, file: int, way: str) -> str:
        """What git, or Git LFS, calls the content of a file of an object; see ``p2pstore.objects.oid``.

        Raises ``PeerHasNot`` where it does not have all of the file, and ``PeerBusy`` while it is finding out.
        """
        path = f"/v1/oids/{digest}?file={file}&way={way}"
        body = await self._body(control, path, MAX_RECORD_BYTES, what="the file", seconds=OID_SECONDS)
        try:
            oid = json.loads(body)["oid"]
        except (ValueError, KeyError, TypeError, RecursionError):
            oid = None
        if not is_oid(oid, way):
            raise RemoteProtocolError(peer=control, detail="its name of a file does not parse")
        return str(oid)

    async def complain(self, control: str, digest: str, chunk: int) -> bool | None:
        """Tell the peer that its bytes of a chunk were wrong: whether they are wrong there, too; None if not looked at.

        Raises as ``count``.
        """
        path = f"/v1/replicas/{digest}/complaints?chunk={chunk}"
        try:
            wrong = json.loads(
                await self._body(control, path, MAX_RECORD_BYTES, what="the object", method="POST"),
            )["wrong"]
        except (ValueError, KeyError, TypeError, RecursionError):
            wrong = None
        return wrong if isinstance(wrong, bool) else None

    async def say(self, control: str, digest: str, listener: str, words: Callable[[], AsyncIterator[bytes]]) -> None:
        """Say the lines of ``words()`` to a peer that grants, each at once, until they end.

        ``listener`` is what it knows us by. Raises as ``availability``.
        """
        path = f"/v1/replicas/{digest}/words?listener={quote(listener, safe='')}"
        try:
            async with self._request(control, path, "POST", words) as answer:
                await self._check(control, answer, "the object")
        except _FAILURES as error:
            raise _unreachable(control, error) from None

    async def availability(
        self, control: str, manifest: Manifest, *, seeds: bool = True, grants: bool = True, abroad: bool = False
    ) -> AsyncIterator[Availability | Shared | Queued | Grant | Claim | list[int]]:
        """What the peer has of an object, then the chunks that it gets, whether others get from it, too, and grants.

        ``seeds``: what we get we pass on; ``grants``: we take them, and ``say`` so; ``abroad``: we are in another zone.
        Ends when the peer withdraws the object.

        Raises ``PeerHasNot``, ``PeerBusy``, ``PeerUnreachable``, ``PeerStalled`` or ``RemoteProtocolError``, and
        ``PeerWithdrew`` at the end where the peer says why.
        """
        path = f"/v1/replicas/{manifest.digest}?seeds={int(seeds)}&grants={int(grants)}"
        if abroad:
            path += "&abroad=1"
        try:
            async with self._request(control, path) as answer:
                await self._check(control, answer, f"manifest {manifest.digest[:12]}")
                first = True
                async for line in _lines(control, answer.content):
                    if first:
                        yield _availability(control, line, manifest.chunks)
                        first = False
                    elif line.get("gone"):
                        why = line.get("why")
                        if isinstance(why, str) and why:
                            raise PeerWithdrew(peer=control, detail=why[:MAX_WHY])
                        return
                    elif (news := _news(control, line, manifest.chunks)) is not None:
                        yield news
                raise PeerUnreachable(peer=control, detail="it ended its news of the object")
        except _FAILURES as error:
            raise _unreachable(control, error) from None

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    @asynccontextmanager
    async def _request(
        self, control: str, path: str, method: str = "GET", body: Callable[[], AsyncIterator[bytes]] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One answer; where there is a secret, to a request that was signed with one that the peer takes.

        A ``body`` may take as long as it takes; it is begun again for each secret that is tried.
        """
        if self._secret is None:
            async with self._ask(method, control, path, {}, body) as answer:
                yield answer
            return
        realm = self._realms.get(control, "")
        if not realm:
            async with self._ask("GET", control, "/v1/health", {}) as answer:
                realm = self._heard(control, answer)
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
        body: Callable[[], AsyncIterator[bytes]] | None = None,
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

    async def _body(
        self,
        control: str,
        path: str,
        limit: int,
        *,
        what: str = "it",
        seconds: float | None = None,
        method: str = "GET",
    ) -> bytes:
        async def fetch() -> bytes:
            async with self._request(control, path, method) as answer:
                await self._check(control, answer, what)
                parts = []
                left = limit
                async for part in answer.content.iter_any():
                    left -= len(part)
                    if left < 0:
                        raise RemoteProtocolError(peer=control, detail=f"an answer longer than {limit} bytes")
                    parts.append(part)
                return b"".join(parts)

        try:
            return await asyncio.wait_for(fetch(), ANSWER_SECONDS if seconds is None else seconds)
        except _FAILURES as error:
            raise _unreachable(control, error) from None

    @staticmethod
    async def _check(control: str, answer: aiohttp.ClientResponse, what: str) -> None:
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


_decode = json.JSONDecoder().decode  # ``loads`` looks first what encoding it may be, which takes as long again


async def _lines(control: str, stream: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream, one a line."""
    rest = b""
    async for part in stream.iter_any():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            try:
                value = _decode(line.decode())
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise RemoteProtocolError(peer=control, detail="a line that is no JSON object")
            yield value
        if len(rest) > MAX_LINE_BYTES:
            raise RemoteProtocolError(peer=control, detail=f"a line longer than {MAX_LINE_BYTES} bytes")


def _availability(control: str, line: dict[str, Any], chunks: int) -> Availability:
    address = line.get("address")
    if type(address) is not int or not 0 <= address < 1 << 64:
        raise RemoteProtocolError(peer=control, detail="a replica without an address")
    try:
        have = Bitmap.from_text(str(line.get("bitmap")), chunks)
    except ValueError as error:
        raise RemoteProtocolError(peer=control, detail=f"a replica with {error}") from None
    listener = line.get("listener", "")
    if not isinstance(listener, str) or len(listener) > MAX_KEY:
        raise RemoteProtocolError(peer=control, detail="an invalid listener key")
    shared, grants = line.get("shared") is True, line.get("grants") is True
    return Availability(address, have, _key(control, line), listener, shared, grants)


def _news(control: str, line: dict[str, Any], chunks: int) -> Shared | Queued | Grant | Claim | list[int] | None:
    """What one line tells; None for nothing, or nothing that is known here."""
    if "grant" in line:
        return _grant(control, line, chunks)
    if "have" in line:
        return _chunks(control, line["have"], chunks)
    if "shared" in line:
        return Shared(line["shared"] is True)
    if "gateway" in line:
        return _claim(control, line)
    return Queued(line["queued"]) if type(line.get("queued")) is int else None


def _grant(control: str, line: dict[str, Any], chunks: int) -> Grant:
    number = line["grant"]
    if type(number) is not int or not 0 <= number < MAX_NUMBER:
        raise RemoteProtocolError(peer=control, detail="a grant without a number")
    runs = _runs(control, line.get("run", []), chunks)
    if len(runs) > 1 or any(len(run) > RUN_CHUNKS for run in runs):
        raise RemoteProtocolError(peer=control, detail="a grant of more than one run")
    window, lead = line.get("window"), line.get("lead")
    if type(window) is not int or not 0 < window <= MAX_PLACES or not isinstance(lead, (int, float)):
        raise RemoteProtocolError(peer=control, detail="a grant without a window and a lead")
    return Grant("", number, runs[0] if runs else None, window, float(min(max(0.0, lead), MAX_LEAD)))


def _claim(control: str, line: dict[str, Any]) -> Claim:
    value = line["gateway"]
    limits = (SHARES, MAX_TERM, len(Rank), MAX_TOKEN)
    if not (isinstance(value, list) and len(value) == len(limits) and all(type(n) is int for n in value)):
        raise RemoteProtocolError(peer=control, detail="a claim to be the gateway that is none")
    if not all(0 <= number < limit for number, limit in zip(value, limits, strict=True)):
        raise RemoteProtocolError(peer=control, detail="a claim to be the gateway that is none")
    share, term, rank, token = value
    return Claim(share, term, Rank(rank), token, line.get("own") is True)


def _key(control: str, answer: dict[str, Any]) -> str:
    key = answer.get("key", "")
    if not is_key(key):
        raise RemoteProtocolError(peer=control, detail="an invalid key")
    return str(key)


def _chunks(control: str, runs: Any, chunks: int) -> list[int]:
    """Chunks from ``[[first, count], ...]``."""
    return [chunk for run in _runs(control, runs, chunks) for chunk in run]


def _runs(control: str, runs: Any, chunks: int) -> list[range]:
    """Runs from ``[[first, count], ...]``."""
    found: list[range] = []
    total = 0
    for run in runs if isinstance(runs, list) else [None]:
        if not (isinstance(run, list) and len(run) == 2 and all(type(n) is int for n in run)):
            raise RemoteProtocolError(peer=control, detail="news that are no runs of chunks")
        first, count = run
        if not 0 <= first <= first + count <= chunks:
            raise RemoteProtocolError(peer=control, detail="a chunk that the object does not have")
        total += count
        if total > MAX_REPEATS * chunks:
            raise RemoteProtocolError(peer=control, detail="the same chunks over and over")
        found.append(range(first, first + count))
    return found


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
