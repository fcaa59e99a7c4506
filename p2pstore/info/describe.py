"""Everything about one object, asked of the metadata store and of the nodes that hold it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from engine.errors import MooncakeError
from engine.net.within import within
from p2pstore.cluster.manifests import first_that_answers
from p2pstore.cluster.records import NodeRecord, ReplicaRecord
from p2pstore.cluster.versions import history, look_up, unknown
from p2pstore.errors import MetadataFull, MetadataRefused
from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.reference import Reference

ASK_SECONDS = 3.0
"""For each holder to say how much it has; the others do not wait for it longer."""

MANIFEST_SECONDS = 10.0
"""For a holder to send the manifest: less than the command waits for the whole answer."""

_OLDER = ("manifest", "created", "tags", "holders")

MAX_ASKED = 64
"""Holders that are asked at once."""


async def describe(parts: Parts, wanted: Reference) -> dict[str, Any]:
    """The object's record, its files, and each holder with how many chunks it has.

    ``superseded`` says whether its name stands for another version by now, whose digest is ``current``; ``older`` are
    versions before the newest that somebody still holds, with their digests, tags and holders.
    The files are missing (None) when no holder answers. ``banned`` are peers that sent this node wrong bytes of it.
    Raises ``ObjectNotFound``, ``AmbiguousDigest``, ``DigestOfAnother`` or ``HolderGone``.
    """
    record = await look_up(parts.registry, wanted)
    if record is None:
        raise await unknown(parts.registry, wanted)
    name = record.name
    replicas = await parts.registry.replicas(record.manifest)
    if not replicas:
        with contextlib.suppress(MetadataFull, MetadataRefused):  # somebody else may be able to
            if await parts.registry.reap(record):
                raise await parts.registry.missing(name)
    nodes = await parts.registry.nodes(list(replicas))
    gate = asyncio.Semaphore(MAX_ASKED)

    async def ask(replica: ReplicaRecord) -> dict[str, Any]:
        async with gate:
            chunks = await _chunks(parts, record.manifest, replica, nodes.get(replica.node))
        whole_but_silent = chunks is None and replica.state == "complete"
        shown = record.chunks if whole_but_silent else chunks or 0
        return {
            "node": replica.node,
            "state": replica.state,
            "role": replica.role,
            "chunks": shown,
            "of": record.chunks,
            "address": nodes[replica.node].control if replica.node in nodes else "",
            "reachable": chunks is not None,
        }

    holders = await asyncio.gather(*(ask(replicas[n]) for n in sorted(replicas)))
    manifest = await _manifest(parts, record.manifest, list(nodes.values()))
    files = None
    if manifest is not None:
        files = [{"path": f.path, "size": f.size, "mode": f.mode, "chunks": len(f.chunks)} for f in manifest.files]
    versions = await history(parts.registry, name)
    wrong = sorted(parts.wrong_bytes.of(record.manifest).items())
    here = [{"role": h.role, "path": h.place} for h in parts.holdings.of(record.manifest) if h.name == name]
    return {
        "name": record.name,
        "here": here,
        "manifest": record.manifest,
        "size": record.size,
        "chunk_size": record.chunk_size,
        "chunks": record.chunks,
        "hash": record.hash,
        "kind": record.kind,
        "creator": record.creator,
        "created": record.created,
        "tags": next((each["tags"] for each in versions if each["manifest"] == record.manifest), []),
        "current": next((each["manifest"] for each in versions if each["current"]), ""),
        "superseded": any(each["superseded"] for each in versions if each["manifest"] == record.manifest),
        "older": [{key: each[key] for key in _OLDER} for each in versions if each["superseded"]],
        "files": files,
        "replicas": list(holders),
        "banned": [{"node": peer, "chunk": chunk} for peer, chunk in wrong],
    }


async def _chunks(parts: Parts, digest: str, replica: ReplicaRecord, where: NodeRecord | None) -> int | None:
    """How many chunks a holder has; None when it does not say."""
    if replica.node == parts.name:
        mine = parts.holdings.replicas.get(digest)
        return mine.have.count if mine else None
    if where is None:
        return None
    try:
        return await within(parts.client.count(where.control, digest), ASK_SECONDS)
    except (MooncakeError, asyncio.TimeoutError):
        return None


async def _manifest(parts: Parts, digest: str, nodes: list[NodeRecord]) -> Manifest | None:
    known = parts.holdings.manifest(digest)
    if known is not None:
        return known
    controls = [(n.node, n.control) for n in nodes if n.node != parts.name]
    try:
        return await within(first_that_answers(parts.client, controls, digest, _say_nothing), MANIFEST_SECONDS)
    except (MooncakeError, asyncio.TimeoutError):
        return None


def _say_nothing(text: str) -> None:
    """Nobody is told which holder did not answer: the listing says so."""
