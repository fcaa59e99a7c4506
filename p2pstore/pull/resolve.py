"""Resolve: what a name stands for, by the metadata store or by peers that the user named, and whom to ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import MooncakeError, RemoteError
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import ObjectRecord
from p2pstore.cluster.registry import Registry
from p2pstore.cluster.versions import look_up, the_one, unknown
from p2pstore.errors import (
    MetadataRefused,
    MetadataUnavailable,
    ObjectNotFound,
    PeerHasNot,
    SecretRefused,
)
from p2pstore.objects.reference import Reference


@dataclass(frozen=True)
class ResolvedName:
    """What a name stands for, and whom to ask: ``controls`` are (node, control address), ``watched`` the metadata."""

    record: ObjectRecord
    controls: tuple[tuple[str, str], ...]
    watched: bool


async def resolve(registry: Registry, client: PeerClient, wanted: Reference, peers: Sequence[str]) -> ResolvedName:
    """Find what is meant in the metadata store, or at the given peers.

    Raises ``ObjectNotFound``, ``HolderGone``, ``AmbiguousDigest``, ``DigestOfAnother``, ``MetadataUnavailable`` (and no
    peer given), or the last peer's fault.
    """
    unavailable: MooncakeError | None = None
    record: ObjectRecord | None = None
    controls: list[tuple[str, str]] = []
    try:
        record = await look_up(registry, wanted)
        if record is not None:
            holders = await registry.replicas(record.manifest)
            complete_first = sorted(holders, key=lambda n: (holders[n].state != "complete", n))
            found = await registry.nodes([n for n in complete_first if n != registry.node])
            controls = [(n, r.control) for n, r in found.items()]
    except (MetadataUnavailable, MetadataRefused) as error:
        if not peers:
            raise
        unavailable = error
    watched = record is not None
    asked = wanted if record is None or wanted.plain else Reference(wanted.name, record.manifest)
    answers, fault = await _ask_peers(client, asked, peers)
    if record is None and wanted.plain and answers:
        record = answers[0][1]
    if record is None:
        record = the_one(wanted, [theirs for _, theirs in answers])
    controls[:0] = [(peer, peer) for peer, theirs in reversed(answers) if record and theirs.manifest == record.manifest]
    if record is None:
        why = _unresolved(wanted, peers, fault, unavailable)
        if isinstance(why, ObjectNotFound) and unavailable is None:
            why = await unknown(registry, wanted)
        raise why
    return ResolvedName(record, tuple(controls), watched)


async def _ask_peers(
    client: PeerClient, wanted: Reference, peers: Sequence[str]
) -> tuple[list[tuple[str, ObjectRecord]], MooncakeError | None]:
    """What each peer that has any has of what is meant, and the last one's fault. Tags they do not know."""
    fault: MooncakeError | None = None
    answers: list[tuple[str, ObjectRecord]] = []
    for peer in peers if wanted.plain or wanted.digest else ():
        try:
            if wanted.plain:
                theirs = [await client.name(peer, wanted.name)]
            else:
                versions = await client.versions(peer, wanted.name)
                theirs = [each for each in versions if wanted.fits(each.name, each.manifest)]
        except (RemoteError, SecretRefused) as error:
            fault = error
            continue
        if not theirs:
            fault = PeerHasNot(peer=peer, what=repr(str(wanted)))
        answers += [(peer, each) for each in theirs]
    return answers, fault


def _unresolved(
    wanted: Reference, peers: Sequence[str], fault: MooncakeError | None, unavailable: MooncakeError | None
) -> MooncakeError:
    if not peers or (isinstance(fault, PeerHasNot) and (wanted.plain or unavailable is None)):
        return ObjectNotFound(name=wanted.name)
    return fault or unavailable or ObjectNotFound(name=wanted.name)
