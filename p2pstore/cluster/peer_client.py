"""Asking a peer's control plane: who it is, what a name stands for, a manifest, and which chunks it has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

from p2pstore.cluster.news_lines import NewsReader, Told, read_key
from p2pstore.cluster.peer_requests import PeerRequests
from p2pstore.cluster.peer_talk import ENDED, PeerTalk, Say
from p2pstore.cluster.records import MAX_RECORD_BYTES, NodeRecord, ObjectRecord, decode
from p2pstore.cluster.secret import ClusterSecret
from p2pstore.errors import PeerHasNot, PeerUnreachable, RemoteProtocolError
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.manifest_reader import MAX_MANIFEST_BYTES, parse
from p2pstore.objects.oid import is_oid

OID_SECONDS = 15.0
"""For what a file is called by its content: a peer says sooner that it is still reading."""

CHECK_SECONDS = 60.0
"""For a peer to try every way to us."""

MAX_VERSIONS_BYTES = 1 << 20
"""Of the records of all versions of a name that one node holds."""

MAX_SAMPLE_BYTES = 64 << 20
"""Of what a peer offers to try a way with."""


class PeerClient:
    """A client of other nodes' control planes, for one event loop. Each question raises as ``PeerRequests.stream``."""

    def __init__(self, secret: bytes | ClusterSecret | None) -> None:
        self._requests = PeerRequests(secret)

    async def close(self) -> None:
        """Close every connection."""
        await self._requests.close()

    async def node(self, control: str) -> NodeRecord:
        """The record of the node at that control address."""
        record = decode(NodeRecord, await self._requests.whole(control, "/v1/peer", MAX_RECORD_BYTES))
        if record is None:
            raise RemoteProtocolError(peer=control, detail="its node record does not parse")
        return record

    async def key(self, control: str) -> str:
        """What the data plane of the node at that control address wants to be shown; empty for nothing."""
        try:
            answer = await self._document(control, "/v1/key")
        except PeerHasNot:  # an older version, which has none
            return ""
        return read_key(control, {"key": answer.get("key")})

    async def sample(self, control: str) -> tuple[int, int] | None:
        """Address and length of bytes to try a way to the peer with; None where it has none, being older."""
        try:
            answer = await self._document(control, "/v1/sample")
        except PeerHasNot:
            return None
        address, length = answer.get("address"), answer.get("length")
        if type(address) is not int or type(length) is not int:
            raise RemoteProtocolError(peer=control, detail="its sample does not parse")
        if not (0 < address < 1 << 64 and 0 < length <= MAX_SAMPLE_BYTES):
            raise RemoteProtocolError(peer=control, detail="a sample that is none")
        return address, length

    async def name(self, control: str, name: str) -> ObjectRecord:
        """What a name stands for at that node. Raises ``PeerHasNot``."""
        body = await self._requests.whole(
            control, f"/v1/names?name={quote(name, safe='')}", MAX_RECORD_BYTES, what=repr(name)
        )
        record = decode(ObjectRecord, body)
        if record is None:
            raise RemoteProtocolError(peer=control, detail="its object record does not parse")
        return record

    async def versions(self, control: str, name: str) -> list[ObjectRecord]:
        """All that a node holds of a name. Raises ``PeerHasNot``, of one of an earlier version of this program, too."""
        body = await self._requests.whole(
            control, f"/v1/versions?name={quote(name, safe='')}", MAX_VERSIONS_BYTES, what=repr(name)
        )
        found = [decode(ObjectRecord, line) for line in body.splitlines()]
        if not all(found):
            raise RemoteProtocolError(peer=control, detail="its object records do not parse")
        return [record for record in found if record is not None]

    async def manifest(self, control: str, digest: str) -> Manifest:
        """The manifest with that digest, checked. Raises ``PeerHasNot`` or ``BadManifest``."""
        data = await self._requests.whole(
            control, f"/v1/manifests/{digest}", MAX_MANIFEST_BYTES, what=f"manifest {digest[:12]}"
        )
        return await asyncio.to_thread(parse, data, peer=control, digest=digest)

    async def check_back(self, control: str, ours: str) -> list[Any]:
        """What the peer found when it tried each way to our control address ``ours``; documents, unchecked."""
        path = f"/v1/paths?control={quote(ours, safe='')}"
        checks = (await self._document(control, path, what="checks", seconds=CHECK_SECONDS)).get("checks")
        if not isinstance(checks, list):
            raise RemoteProtocolError(peer=control, detail="its checks do not parse")
        return checks

    async def count(self, control: str, digest: str) -> int:
        """How many chunks of an object the peer has. Raises ``PeerHasNot``."""
        count = (await self._document(control, f"/v1/replicas/{digest}/count", what="the object")).get("chunks")
        if type(count) is not int or count < 0:
            raise RemoteProtocolError(peer=control, detail="its count does not parse")
        return count

    async def oid(self, control: str, digest: str, file: int, way: str) -> str:
        """What git, or Git LFS, calls the content of a file of an object; see ``p2pstore.objects.oid``.

        Raises ``PeerHasNot`` where it does not have all of the file, and ``PeerBusy`` while it is finding out.
        """
        path = f"/v1/oids/{digest}?file={file}&way={way}"
        oid = (await self._document(control, path, what="the file", seconds=OID_SECONDS)).get("oid")
        if not is_oid(oid, way):
            raise RemoteProtocolError(peer=control, detail="its name of a file does not parse")
        return str(oid)

    async def complain(self, control: str, digest: str, chunk: int) -> bool | None:
        """Tell the peer that its bytes of a chunk were wrong: whether they are wrong there, too; None if not looked at.

        Raises as ``count``.
        """
        path = f"/v1/replicas/{digest}/complaints?chunk={chunk}"
        wrong = (await self._document(control, path, what="the object", method="POST")).get("wrong")
        return wrong if isinstance(wrong, bool) else None

    async def say(self, control: str, digest: str, listener: str, words: Callable[[], AsyncIterator[bytes]]) -> None:
        """Say the lines of ``words()`` to a peer that grants, each at once, until they end.

        ``listener`` is what it knows us by. Raises as ``availability``.
        """
        path = f"/v1/replicas/{digest}/words?listener={quote(listener, safe='')}"
        async with self._requests.stream(control, path, what="the object", method="POST", body=words):
            pass

    async def availability(
        self, control: str, manifest: Manifest, *, seeds: bool = True, grants: bool = True, abroad: bool = False
    ) -> AsyncIterator[Told]:
        """What the peer has of an object, then the chunks that it gets, whether others get from it, too, and grants.

        ``seeds``: what we get we pass on; ``grants``: we take them, and ``say`` so; ``abroad``: we are in another zone.
        Ends when the peer withdraws the object.

        Raises ``PeerHasNot``, ``PeerBusy``, ``PeerUnreachable``, ``PeerStalled`` or ``RemoteProtocolError``, and
        ``PeerWithdrew`` at the end where the peer says why.
        """
        path = _news_path(manifest, seeds=seeds, grants=grants, abroad=abroad)
        reader = NewsReader(control, manifest.chunks)
        async with self._requests.stream(control, path, what=f"manifest {manifest.digest[:12]}") as answer:
            async for part in answer.content.iter_any():
                for told in reader.read(part):
                    yield told
                if reader.withdrawn:
                    return
            raise PeerUnreachable(peer=control, detail=ENDED)

    async def converse(
        self,
        control: str,
        manifest: Manifest,
        hear: Callable[[Told, Say], None],
        *,
        seeds: bool = True,
        grants: bool = True,
        abroad: bool = False,
        behind: Callable[[], bool] = lambda: False,
    ) -> bool:
        """As ``availability`` and ``say`` together, over one connection: ``hear`` is called with what the peer tells.

        With it comes what says lines to the peer. While we are ``behind`` nothing is read. False is returned at once
        where the peer is of an earlier version, or refuses, which ``availability`` finds out.
        """
        path = _news_path(manifest, seeds=seeds, grants=grants, abroad=abroad)
        found = await self._requests.upgrade(control, path)
        if found is None:
            return False
        await PeerTalk(control, manifest.chunks, hear, behind).run(*found)
        return True

    async def _document(
        self, control: str, path: str, *, what: str = "it", seconds: float | None = None, method: str = "GET"
    ) -> dict[str, Any]:
        """A short answer that is a JSON object; an empty one where it is anything else."""
        body = await self._requests.whole(control, path, MAX_RECORD_BYTES, what=what, seconds=seconds, method=method)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return {}
        return answer if isinstance(answer, dict) else {}


def _news_path(manifest: Manifest, *, seeds: bool, grants: bool, abroad: bool) -> str:
    path = f"/v1/replicas/{manifest.digest}?seeds={int(seeds)}&grants={int(grants)}"
    return path + "&abroad=1" if abroad else path
