"""Which other version of an object lies at a destination: all that a get that updates may replace."""

from __future__ import annotations

import asyncio
from pathlib import Path

from p2pstore.cluster.records import ObjectRecord
from p2pstore.cluster.versions import versions_of
from p2pstore.errors import Interrupted, MetadataRefused, MetadataUnavailable, MooncakeError
from p2pstore.holding.catalog import Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.selection import selection_of
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from p2pstore.pull.pipeline import Pipeline


async def version_at(parts: Parts, path: Path, get: Pipeline) -> tuple[Holding, Manifest] | None:
    """The version that lies at ``path``, exactly and without anything else, with the stamps of its files.

    What this node holds there is known by its stamps. Anything else is hashed, and is a version if its digest is one
    that the metadata store knows of this object's.
    """
    holdings, record = parts.holdings, get.resolved.record
    holding = holdings.at(path)
    if holding is not None and holding.name == record.name:
        manifest = holdings.manifest(holding.digest)
        if manifest is not None and not await get.in_thread(holdings.fault, holding):
            return holding, manifest
    try:
        known = {each.manifest: each for each in await versions_of(parts.registry, record.name)}
    except (MetadataUnavailable, MetadataRefused):
        return None
    get.note(f"{path} exists; finding out whether it is another version of {record.name}")
    for how in sorted({(each.hash, each.chunk_size) for each in known.values()}):
        found = await get.in_thread(_hashed, path, how, known, get)
        if found is not None:
            return found
    return None


def _hashed(
    path: Path, how: tuple[str, int], known: dict[str, ObjectRecord], get: Pipeline
) -> tuple[Holding, Manifest] | None:
    """What lies at ``path``, hashed in one way, if that is a known version. Raises ``Interrupted``."""
    try:
        tree = scan(path, selection_of(get.manifest.columns.paths))
        if tree.size not in {each.size for each in known.values()}:
            return None
        get.steps.begin("comparing", tree.size, "B")
        manifest = hash_tree(tree, hash_name=how[0], chunk_size=how[1], cancelled=get.cancelled, progress=get.steps.add)
    except Interrupted:
        raise
    except MooncakeError:
        return None
    record = known.get(manifest.digest)
    return None if record is None else (Holding(record, "replica", path, tree.files), manifest)


def differ(theirs: Manifest, manifest: Manifest) -> bool:
    """Whether two manifests are known to be of other bytes: of one they may be cut, or hashed, in two ways. Pure."""
    mine, others = manifest.columns, theirs.columns
    if theirs.kind != manifest.kind or theirs.directories != manifest.directories or others.sizes != mine.sizes:
        return True
    if tuple(others.paths) != tuple(mine.paths):
        return True
    alike = (theirs.hash, theirs.chunk_size, others.origins) == (manifest.hash, manifest.chunk_size, mine.origins)
    return alike and others.digests != mine.digests


async def cut_alike(holdings: Holdings, path: Path, manifest: Manifest) -> bool:
    """Whether what this node serves from ``path``, as it was, has its chunks where the object would have them."""
    holding = holdings.at(path)
    theirs = holdings.manifest(holding.digest) if holding is not None else None
    if holding is None or theirs is None or holding.digest not in holdings.replicas:
        return False
    if (theirs.hash, theirs.chunk_size) != (manifest.hash, manifest.chunk_size):
        return False
    if manifest.columns.origins and not theirs.columns.origins:
        return False
    return not await asyncio.to_thread(holdings.fault, holding)
