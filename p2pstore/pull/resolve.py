"""Resolve: what a name stands for, by the metadata store or by peers that the user named, and whom to ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import MooncakeError, RemoteError
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import ObjectRecord
from p2pstore.cluster.registry import Registry
from p2pstore.errors import MetadataRefused, MetadataUnavailable, ObjectNotFound, PeerHasNot, SecretRefused


@dataclass(frozen=True)
class ResolvedName:
    """What a name stands for, and whom to ask: ``controls`` are (node, control address), ``watched`` the metadata."""

    record: ObjectRecord
    controls: tuple[tuple[str, str], ...]
    watched: bool


async def resolve(registry: Registry, client: PeerClient, name: str, peers: Sequence[str]) -> ResolvedName:
    """Find a name in the metadata store, or at the given peers.

    Raises ``ObjectNotFound``, ``HolderGone``, ``MetadataUnavailable`` (and no peer given), or the last peer's fault.
    """
    unavailable: MooncakeError | None = None
    record: ObjectRecord | None = None
    controls: list[tuple[str, str]] = []
    try:
        record = await registry.find(name)
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
    fault: MooncakeError | None = None
    for peer in peers:
        try:
            theirs = await client.name(peer, name)
        except (RemoteError, SecretRefused) as error:
            fault = error
            continue
        if record is None:
            record = theirs
        if record.manifest == theirs.manifest:
            controls.insert(0, (peer, peer))
    if record is None:
        why = _unresolved(name, peers, fault, unavailable)
        if isinstance(why, ObjectNotFound) and unavailable is None:
            why = await registry.missing(name)
        raise why
    return ResolvedName(record, tuple(controls), watched)


def _unresolved(
    name: str, peers: Sequence[str], fault: MooncakeError | None, unavailable: MooncakeError | None
) -> MooncakeError:
    if not peers or isinstance(fault, PeerHasNot):
        return ObjectNotFound(name=name)
    return fault or unavailable or ObjectNotFound(name=name)
