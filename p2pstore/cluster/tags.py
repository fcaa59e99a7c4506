"""Tags: names that people give to versions of an object, for all nodes. A tag leads to one manifest digest.

A tag moves in one transaction that holds only if nobody has moved it since it was read: whoever moves it can say from
where. It stays when nobody holds the version any more; whoever asks is told that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

from p2pstore.cluster import records
from p2pstore.cluster.lookup import COUNTED_AT_ONCE, Lookup
from p2pstore.cluster.records import ObjectRecord, TagRecord
from p2pstore.errors import MetadataRefused, MetadataUnavailable, TagNotFound
from p2pstore.metadata.store import Absent, Delete, KeyValue, Put, Unchanged
from p2pstore.objects.reference import check_tag

ATTEMPTS = 16
"""How often a tag that somebody else has just moved is moved again."""

PAUSE = 0.01
"""Seconds more before each of these attempts."""

PAGE = 500
"""Tags of one read."""


async def find_tag(lookup: Lookup, name: str, tag: str) -> TagRecord | None:
    """What a tag of an object leads to."""
    return _decoded(await lookup.store.get(records.tag_key(name, tag)))


async def tags_of(lookup: Lookup, name: str) -> list[TagRecord]:
    """All tags of an object, by name."""
    found: list[TagRecord] = []
    after = ""
    while True:
        page = await lookup.store.scan(records.tag_key(name, ""), limit=PAGE, after=after)
        found += [record for item in page.items if (record := _decoded(item)) is not None]
        if not page.more:
            return found
        after = page.items[-1].key


async def tagged(lookup: Lookup, name: str, but: Collection[str] = ()) -> set[str]:
    """The digests of the versions of an object that have a tag, those in ``but`` left aside."""
    return {record.manifest for record in await tags_of(lookup, name) if record.tag not in but}


async def stale_tags(lookup: Lookup, name: str, digest: str) -> list[str]:
    """The tags of an object that lead to a version, if nobody holds it now; none where that is not known."""
    try:
        found = [record.tag for record in await tags_of(lookup, name) if record.manifest == digest]
        return found if found and not await lookup.replicas(digest) else []
    except (MetadataUnavailable, MetadataRefused):
        return []


async def move_tag(lookup: Lookup, version: ObjectRecord, tag: str, by: str) -> TagRecord | None:
    """Have a tag lead to a version; where it led before, None if it is new.

    Raises ``BadTag``, or ``MetadataUnavailable`` where others move it all the while.
    """
    key = records.tag_key(version.name, check_tag(tag))
    shown = {name: value for name, value in asdict(version).items() if name != "supersedes"}
    for attempt in range(ATTEMPTS):
        held = await lookup.store.get(key)
        known = _decoded(held)
        if known is not None and known.manifest == version.manifest:
            return known
        record = TagRecord(tag=tag, by=by, moved=time.time(), **shown)
        condition = Unchanged(key, held.mod_revision) if held else Absent(key)
        if await lookup.store.commit([Put(key, records.encode(record))], [condition]) is not None:
            return known
        await asyncio.sleep(PAUSE * attempt)
    raise MetadataUnavailable(url=lookup.store.url, detail=f"{ATTEMPTS} others were faster at {key}")


async def tag_version(lookup: Lookup, version: ObjectRecord, tags: Iterable[str], by: str) -> list[dict[str, str]]:
    """Have these tags lead to a version: each with the digest to which it led ``before``, empty if it is new."""
    moved = [(tag, await move_tag(lookup, version, tag, by)) for tag in tags]
    return [{"tag": tag, "before": before.manifest if before else ""} for tag, before in moved]


async def remove_tag(lookup: Lookup, name: str, tag: str) -> TagRecord:
    """Remove a tag; where it led. Raises ``TagNotFound``, or ``MetadataUnavailable`` as ``move_tag``."""
    key = records.tag_key(name, tag)
    for attempt in range(ATTEMPTS):
        held = await lookup.store.get(key)
        known = _decoded(held)
        if held is None or known is None:
            raise TagNotFound(name=name, tag=tag)
        if await lookup.store.commit([Delete(key)], [Unchanged(key, held.mod_revision)]) is not None:
            return known
        await asyncio.sleep(PAUSE * attempt)
    raise MetadataUnavailable(url=lookup.store.url, detail=f"{ATTEMPTS} others were faster at {key}")


async def describe_tags(lookup: Lookup, found: list[TagRecord]) -> list[dict[str, Any]]:
    """Tags with their versions, and how many nodes hold all or a part of each."""
    shown: list[dict[str, Any]] = []
    for first in range(0, len(found), COUNTED_AT_ONCE):
        some = found[first : first + COUNTED_AT_ONCE]
        counted = await lookup.counted([record.version for record in some])
        shown += [
            {**asdict(record), "complete": entry.complete, "partial": entry.partial}
            for record, entry in zip(some, counted, strict=True)
        ]
    return shown


def _decoded(item: KeyValue | None) -> TagRecord | None:
    """The record under a tag's key; None where somebody else wrote there."""
    record = records.decode(TagRecord, item.value) if item is not None else None
    good = record is not None and item is not None and records.tag_key(record.name, record.tag) == item.key
    return record if good else None
