"""The versions of an object: what its name stands for, what it stood for before, and which of them a reference means.

An earlier version's record is the object's of before, under a key of its own. It is written in the transaction that
replaces it, so an object that was never replaced costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from p2pstore.cluster import records
from p2pstore.cluster.lookup import COUNTED_AT_ONCE, Lookup
from p2pstore.cluster.records import ObjectRecord
from p2pstore.cluster.tags import find_tag, tagged, tags_of
from p2pstore.errors import AmbiguousDigest, DigestOfAnother, MooncakeError, TagNotFound, VersionNotFound
from p2pstore.metadata.store import Absent, AbsentPrefix, Delete, KeyValue, Operation, Put, Unchanged
from p2pstore.objects.reference import ALGORITHM, Reference

KEPT_VERSIONS = 32
"""Earlier versions of an object that are remembered though nobody holds them: of more, the oldest are forgotten."""

SHOWN_DIGITS = 16
"""Digits of each digest that an error names: more than anybody gives by chance."""

TELLING_DIGITS = 8
"""Of a digest that is taken for another object's: fewer may be anybody's by chance."""

SEARCHED_NAMES = 10_000
"""Objects among which the one is looked for whose content a digest is."""

PAGE = 1000
"""Objects of one read of that search."""


def superseding(known: ObjectRecord, record: ObjectRecord) -> list[Operation]:
    """What is written beside ``record`` when that takes the place of ``known``."""
    return [
        Put(records.version_key(known.name, known.manifest), records.encode(known)),
        Delete(records.version_key(record.name, record.manifest)),  # it is the newest again
    ]


async def remember_version(lookup: Lookup, record: ObjectRecord) -> None:
    """Say of content that is held under a name that stands for other content: it is a version of that, too."""
    key = records.version_key(record.name, record.manifest)
    await lookup.store.commit([Put(key, records.encode(record))], [Absent(key)])


async def earlier_versions(lookup: Lookup, name: str, begins: str = "") -> list[ObjectRecord]:
    """The earlier versions of an object whose digests begin so, the latest first."""
    return [record for _, record in await _found(lookup, name, begins)]


async def _found(lookup: Lookup, name: str, begins: str = "") -> list[tuple[KeyValue, ObjectRecord]]:
    page = await lookup.store.scan(records.version_key(name, begins), limit=records.MAX_VERSIONS)
    decoded = ((item, records.decode(ObjectRecord, item.value)) for item in page.items)
    found = [
        (item, record)
        for item, record in decoded
        if record is not None and records.version_key(record.name, record.manifest) == item.key
    ]
    return sorted(found, key=lambda pair: pair[1].created, reverse=True)


async def forget_versions(lookup: Lookup, name: str, *, keep: int = 0) -> None:
    """Forget the earlier versions that nobody holds and that have no tag, but for the latest ``keep`` of them."""
    found = await _found(lookup, name)
    if len(found) <= keep:
        return
    known = await tagged(lookup, name)
    found = [pair for pair in found if pair[1].manifest not in known]
    unheld: list[KeyValue] = []
    for first in range(0, len(found), COUNTED_AT_ONCE):
        some = found[first : first + COUNTED_AT_ONCE]
        counted = await lookup.counted([record for _, record in some])
        unheld += [item for (item, _), entry in zip(some, counted, strict=True) if not entry.complete + entry.partial]
    for item in unheld[keep:]:
        replicas = AbsentPrefix(records.replicas_prefix(item.key.rpartition("@")[2]))
        await lookup.store.commit([Delete(item.key)], [Unchanged(item.key, item.mod_revision), replicas])


async def look_up(lookup: Lookup, wanted: Reference) -> ObjectRecord | None:
    """The record of the version that is meant, or None. Raises ``AmbiguousDigest``."""
    current = await lookup.find(wanted.name)
    if wanted.plain:
        return current
    if not wanted.digest:
        tag = await find_tag(lookup, wanted.name, wanted.tag)
        same = tag is not None and current is not None and tag.manifest == current.manifest
        return None if tag is None else current if same else tag.version
    found = {record.manifest: record for record in await earlier_versions(lookup, wanted.name, wanted.digest)}
    for tag in await tags_of(lookup, wanted.name):  # what it led to may stand nowhere else by now
        if wanted.fits(tag.name, tag.manifest):
            found.setdefault(tag.manifest, tag.version)
    if current is not None and wanted.fits(current.name, current.manifest):
        found[current.manifest] = current
    return the_one(wanted, list(found.values()))


def the_one(wanted: Reference, found: Sequence[ObjectRecord]) -> ObjectRecord | None:
    """Which of some versions that fit is meant. Raises ``AmbiguousDigest`` where it may be several; pure."""
    digests = sorted({record.manifest for record in found})
    if len(digests) > 1:
        raise ambiguous(wanted.name, digests)
    return found[0] if found else None


def ambiguous(name: str, digests: Sequence[str]) -> AmbiguousDigest:
    """That several versions may be meant. Each is named by as much of its digest as tells them apart."""
    digits = SHOWN_DIGITS
    while digits < len(digests[0]) and len({digest[:digits] for digest in digests}) < len(digests):
        digits += SHOWN_DIGITS
    return AmbiguousDigest(name=name, found=", ".join(f"{ALGORITHM}:{digest[:digits]}" for digest in digests))


async def unknown(lookup: Lookup, wanted: Reference) -> MooncakeError:
    """Why there is no such version: no such object, its holders died lately, or no such tag or digest of it."""
    current = await lookup.find(wanted.name)
    if wanted.plain or not (
        current or await earlier_versions(lookup, wanted.name) or await tags_of(lookup, wanted.name)
    ):
        return await lookup.missing(wanted.name)
    if not wanted.digest:
        return TagNotFound(name=wanted.name, tag=wanted.tag)
    digest = f"{ALGORITHM}:{wanted.digest}"
    if len(wanted.digest) < TELLING_DIGITS:
        return VersionNotFound(name=wanted.name, digest=digest)
    after = ""
    for _ in range(SEARCHED_NAMES // PAGE):
        page = await lookup.store.scan(records.OBJECTS, limit=PAGE, after=after)
        for item in page.items:
            record = records.decode(ObjectRecord, item.value)
            if record is not None and record.manifest.startswith(wanted.digest) and record.name != wanted.name:
                return DigestOfAnother(wanted=wanted.name, digest=digest, name=record.name)
        if not page.more:
            break
        after = page.items[-1].key
    return VersionNotFound(name=wanted.name, digest=digest)


async def superseded(lookup: Lookup, current: ObjectRecord) -> int:
    """How many versions before the newest somebody holds."""
    found = [r for r in await earlier_versions(lookup, current.name) if r.manifest != current.manifest]
    held = 0
    for first in range(0, len(found), COUNTED_AT_ONCE):
        counted = await lookup.counted(found[first : first + COUNTED_AT_ONCE])
        held += sum(entry.complete + entry.partial > 0 for entry in counted)
    return held


async def versions_of(lookup: Lookup, name: str) -> list[ObjectRecord]:
    """All versions of an object that are known, what its name stands for first, then the latest first."""
    current = await lookup.find(name)
    found = {tag.manifest: tag.version for tag in await tags_of(lookup, name)}
    found.update((record.manifest, record) for record in await earlier_versions(lookup, name))
    if current is not None:
        found[current.manifest] = current
    return sorted(found.values(), key=lambda record: (record is not current, -record.created))


async def history(lookup: Lookup, name: str) -> list[dict[str, Any]]:
    """All that is known of the versions of an object, what its name stands for first, then the latest first.

    Each has what a listing shows, its ``tags``, and its ``holders`` (node and state). ``current`` is what the name
    stands for, ``superseded`` what it does not, and somebody still holds.
    """
    order, tags, current = await versions_of(lookup, name), await tags_of(lookup, name), await lookup.find(name)
    newest = current.manifest if current is not None else ""
    shown: list[dict[str, Any]] = []
    for first in range(0, len(order), COUNTED_AT_ONCE):
        some = order[first : first + COUNTED_AT_ONCE]
        for record, replicas in zip(some, await lookup.holders(some), strict=True):
            shown.append(
                {
                    **{key: value for key, value in asdict(record).items() if key not in {"name", "supersedes"}},
                    "tags": [tag.tag for tag in tags if tag.manifest == record.manifest],
                    "current": record.manifest == newest,
                    "superseded": bool(newest and record.manifest != newest and replicas),
                    "holders": [{"node": node, "state": replicas[node].state} for node in sorted(replicas)],
                }
            )
    return shown
