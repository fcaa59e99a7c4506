"""Watching an object, or a tag of it, for new versions: for ever, also while the metadata server is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from p2pstore.cluster import records
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.records import ObjectRecord, TagRecord
from p2pstore.errors import Closed, UsageError
from p2pstore.metadata.store import Changed, KeyValue, MetadataStore, Snapshot, WatchEvent
from p2pstore.objects.reference import ALGORITHM, Reference

LOOK_SECONDS = 1.0
"""Between looks at whether the metadata server answers: what is told of it is at most so late."""

Tell = Callable[[dict[str, Any]], None]


class Versions:
    """From the events of a watch to the versions that are new. Pure.

    ``seen`` is the digest of the last one, empty before the first. A version that goes and comes back is no new one.
    """

    def __init__(self, wanted: Reference) -> None:
        """Raises ``UsageError`` for a digest, which leads to one version for ever."""
        if wanted.digest:
            raise UsageError(detail=f"'{wanted}' is one version for ever; a name or a tag can be watched")
        self.key = records.tag_key(wanted.name, wanted.tag) if wanted.tag else records.object_key(wanted.name)
        self.seen = ""
        self._tag = bool(wanted.tag)

    def new_in(self, event: WatchEvent) -> ObjectRecord | None:
        """The version to which an event leads, if that is another than the last."""
        items = event.items if isinstance(event, Snapshot) else (event.item,) if isinstance(event, Changed) else ()
        for item in items:  # names that begin alike are watched, too
            if item.key == self.key:
                record = self._record(item)
                if record is not None and record.manifest != self.seen:
                    self.seen = record.manifest
                    return record
        return None

    def _record(self, item: KeyValue) -> ObjectRecord | None:
        if not self._tag:
            return records.decode(ObjectRecord, item.value)
        tag = records.decode(TagRecord, item.value)
        return tag.version if tag is not None else None


async def new_versions(
    store: MetadataStore, wanted: Reference, *, initial: bool
) -> AsyncIterator[tuple[ObjectRecord | None, str]]:
    """First None or, if it is wanted, the ``initial`` version; then each new one, with the digest of the one before.

    Where several came while nobody answered, the last. Raises ``MetadataRefused`` in the beginning, and ``UsageError``.
    """
    versions = Versions(wanted)
    first = True
    async with aclosing(store.watch(versions.key)) as events:  # type: ignore[type-var] # a generator in both stores
        async for event in events:
            before = versions.seen
            record = versions.new_in(event)
            if first:
                yield (record if initial else None), before
            elif record is not None:
                yield record, before
            first = False


async def next_version(
    store: MetadataStore, membership: Membership, versions: Versions, tell: Tell
) -> tuple[ObjectRecord, str]:
    """The next version after the last that was seen, and the digest of that; a loss of the metadata server is told."""
    losses = asyncio.ensure_future(_losses(membership, tell))
    try:
        async with aclosing(store.watch(versions.key)) as events:  # type: ignore[type-var] # as below
            async for event in events:
                before = versions.seen
                record = versions.new_in(event)
                if record is not None:
                    return record, before
        raise Closed(what="the metadata store")
    finally:
        losses.cancel()
        await asyncio.gather(losses, return_exceptions=True)


async def watch(store: MetadataStore, membership: Membership, wanted: Reference, tell: Tell, *, initial: bool) -> None:
    """Tell of each new version, and of a metadata server that does not answer; for ever. Raises as ``new_versions``."""

    async def versions() -> None:
        async with aclosing(new_versions(store, wanted, initial=initial)) as found:  # type: ignore[type-var]
            async for record, before in found:
                if record is not None:
                    tell({"event": "version", **described(wanted, record, before)})
                else:
                    tell({"event": "note", "text": f"watching {wanted} for new versions"})

    both = [asyncio.ensure_future(versions()), asyncio.ensure_future(_losses(membership, tell))]
    try:
        await asyncio.gather(*both)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)  # how the first of them ended is raised above


async def _losses(membership: Membership, tell: Tell) -> None:
    """Tell when the metadata server is lost, and when it answers again."""
    was_ok, since = True, 0.0
    while True:
        if membership.ok and not was_ok:
            tell(
                {"event": "note", "text": f"the metadata server answers again, after {time.monotonic() - since:.0f} s"}
            )
        elif was_ok and not membership.ok:
            since = time.monotonic()
            why = membership.fault or "the metadata server does not answer"
            tell({"event": "note", "text": f"{why}; still watching, and trying again"})
        was_ok = membership.ok
        await asyncio.sleep(LOOK_SECONDS)


def described(wanted: Reference, record: ObjectRecord, before: str) -> dict[str, Any]:
    """What is told of a version; ``previous`` is the digest of the one that was seen ``before``, or empty."""
    return {
        "name": record.name,
        "tag": wanted.tag,
        "reference": f"{record.name}@{ALGORITHM}:{record.manifest}",
        "manifest": record.manifest,
        "previous": before,
        "size": record.size,
        "files": record.files,
        "creator": record.creator,
        "created": record.created,
    }
