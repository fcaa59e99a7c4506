"""Which objects there are, page by page, as all of the cluster knows them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from p2pstore.holding.parts import Parts

MAX_LISTING = 1000
"""Objects in one page of a listing."""


async def listing(parts: Parts, prefix: str, *, limit: int, after: str) -> dict[str, Any]:
    """One page of the objects whose names begin with ``prefix``, those behind the name ``after``.

    ``limit`` are the objects of the page, 0 for as many as one may have. ``next`` is the name to go on behind, None at
    the end; ``here`` are the places where an object's newest version lies on this node.
    """
    found, following = await parts.registry.listing(prefix, limit=min(limit or MAX_LISTING, MAX_LISTING), after=after)
    objects = []
    for entry in found:
        shown = asdict(entry.record)
        counts = {"complete": entry.complete, "partial": entry.partial, "superseded": entry.superseded}
        here = [h.place for h in parts.holdings.named(entry.record.name) if h.digest == entry.record.manifest]
        objects.append({**shown, **counts, "here": here})
    return {"objects": objects, "next": following or None}
