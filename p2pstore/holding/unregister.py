"""An unregister: what this node has under a name, or of one version of it, is withdrawn, and deleted if that is asked.

That is its whole copies, which stand among the holdings, or where there are none the part of it that is served.
"""

from __future__ import annotations

from typing import Any

from p2pstore.cluster.tags import stale_tags
from p2pstore.errors import CopyStays
from p2pstore.holding import meant
from p2pstore.holding.parts import Parts
from p2pstore.holding.prune import delete_all
from p2pstore.objects.reference import parse_reference


async def unregister(parts: Parts, name: str, *, delete: bool, last_copies: bool) -> dict[str, Any]:
    """Withdraw what this node has under ``name``, or of one version of it.

    Files stay, unless ``delete``: then those that this agent wrote go, and where it did not write all of them,
    nothing is changed. Raises ``NotHeld``, ``AmbiguousDigest`` or as ``meant.by_digest``, and as ``Cache.delete``.
    ``removed`` says whether the name went with it: True, False, or None while the metadata server cannot be told;
    ``pending`` says why then. ``replaced_by`` is who gave the name to other content, which stays. ``tags`` lead to
    it, and nobody holds it any more.
    """
    asked = parse_reference(name)
    wanted = await meant.by_digest(parts, asked)
    mine = meant.held(parts, wanted)
    await parts.part_copies.forget_whole()
    part = None if mine else parts.part_copies.named(wanted.name)
    deleted: list[dict[str, Any]] = []
    if mine:
        digest = mine[0].digest
        if delete:
            removed, deleted = await delete_all(parts.cache, mine, last_copies=last_copies)
        else:
            removed = await parts.publisher.withdraw(mine)
        withdrawn = [{"role": h.role, "path": h.place} for h in mine]
    elif part is not None and wanted.fits(wanted.name, part[0].manifest):
        record, place = part
        if delete:
            raise CopyStays(path=place, detail="it is a part of an object")
        digest = record.manifest
        removed = await parts.part_copies.withdraw(record)
        withdrawn = [{"role": "part", "path": str(place)}]
    else:
        raise await meant.why_not_held(parts, asked, wanted)
    return {
        "name": wanted.name,
        "manifest": digest,
        "withdrawn": withdrawn,
        "deleted": deleted,
        "removed": removed,
        "pending": parts.publisher.pending if removed is None else "",
        "replaced_by": await meant.replaced_by(parts, wanted.name, digest) if removed is False else "",
        "tags": await stale_tags(parts.registry, wanted.name, digest),
    }
