"""What of this node's a user means, who names an object, a version of it, or the place where it lies.

A tag is looked up first: what lies here is known by its digest alone. Where nothing is found, the reason is told apart,
since each needs another step: no such object, not held here, or another version held here.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from engine.errors import MooncakeError
from p2pstore.cluster.versions import look_up, the_one, unknown
from p2pstore.errors import NotHeld, PathNotFound, VersionNotHeld
from p2pstore.holding.catalog import Holding
from p2pstore.holding.parts import Parts
from p2pstore.objects.reference import ALGORITHM, SHOWN_DIGITS, Reference, parse_reference


async def by_digest(parts: Parts, wanted: Reference) -> Reference:
    """The same by its digest, where it is by a tag. Raises as ``unknown``."""
    if wanted.plain or wanted.digest:
        return wanted
    record = await look_up(parts.registry, wanted)
    if record is None:
        raise await unknown(parts.registry, wanted)
    return Reference(wanted.name, record.manifest, wanted.tag)


def held(parts: Parts, wanted: Reference) -> list[Holding]:
    """What this node has of what is meant, which is not by a tag any more. Raises ``AmbiguousDigest``."""
    mine = [holding for holding in parts.holdings.named(wanted.name) if wanted.fits(holding.name, holding.digest)]
    if not wanted.plain:
        the_one(wanted, [holding.record for holding in mine])
    return mine


async def why_not_held(parts: Parts, asked: Reference, wanted: Reference) -> MooncakeError:
    """Why this node has nothing of what was ``asked`` for, which is ``wanted`` by its digest."""
    if await look_up(parts.registry, wanted) is None:
        return await unknown(parts.registry, wanted)
    if wanted == asked:
        return NotHeld(name=str(asked))
    return VersionNotHeld(name=str(asked), digest=f"{ALGORITHM}:{wanted.digest[:SHOWN_DIGITS]}")


async def holding_of(parts: Parts, target: str) -> Holding:
    """The holding that a reference means, or that lies at an absolute path.

    Raises ``BadName``, ``NotHeld``, ``VersionNotHeld``, ``PathNotFound``, ``AmbiguousDigest`` or as ``unknown``.
    """
    if os.path.isabs(target):
        at = parts.holdings.at
        holding = at(Path(target)) or at(await asyncio.to_thread(_led_to, target))
        if holding is None:
            there = await asyncio.to_thread(os.path.lexists, target)
            raise NotHeld(name=target) if there else PathNotFound(path=target)
        return holding
    asked = parse_reference(target)
    wanted = await by_digest(parts, asked)
    mine = held(parts, wanted)
    if not mine:
        raise await why_not_held(parts, asked, wanted)
    return mine[0]


async def replaced_by(parts: Parts, name: str, digest: str) -> str:
    """Who gave a name to other content than this meanwhile; empty where nobody did, or that is not known now."""
    try:
        record = await parts.registry.find(name)
    except MooncakeError:
        return ""
    return record.creator if record is not None and record.manifest != digest else ""


def _led_to(path: str) -> Path:
    """Where a path leads: what was registered by a link is held where it lies."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(path)
