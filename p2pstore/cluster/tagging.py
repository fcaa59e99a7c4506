"""What users ask of tags: to move them, to list them, to remove one, each by a reference as it was typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from p2pstore.cluster.lookup import Lookup
from p2pstore.cluster.tags import describe_tags, remove_tag, tag_version, tags_of
from p2pstore.cluster.versions import look_up, unknown
from p2pstore.errors import TagNotFound, UsageError
from p2pstore.objects.reference import check_tag, parse_reference


async def tag(lookup: Lookup, name: str, tags: Sequence[str], by: str) -> dict[str, Any]:
    """Have tags lead to what a reference means, from now on and for all nodes; ``by`` is the node that says so.

    Returns name, manifest, and for each tag where it led ``before``: a digest, or an empty text. Raises ``BadTag``,
    ``BadName``, and as ``look_up`` and ``unknown``.
    """
    wanted = parse_reference(name)
    new = [check_tag(each) for each in dict.fromkeys(tags)]
    record = await look_up(lookup, wanted)
    if record is None:
        raise await unknown(lookup, wanted)
    moved = await tag_version(lookup, record, new, by)
    return {"name": record.name, "manifest": record.manifest, "tags": moved}


async def list_tags(lookup: Lookup, name: str) -> dict[str, Any]:
    """The tags of an object, or the one that is asked for, each with its version and how many hold that.

    Raises ``TagNotFound``, or ``ObjectNotFound`` where neither the object nor a tag of it is known.
    """
    wanted = parse_reference(name)
    found = await tags_of(lookup, wanted.name)
    shown = [each for each in found if wanted.tag in {"", each.tag} and wanted.fits(each.name, each.manifest)]
    if not shown and (wanted.tag or await look_up(lookup, wanted) is None):
        raise await unknown(lookup, wanted)
    return {"tags": await describe_tags(lookup, shown)}


async def untag(lookup: Lookup, name: str) -> dict[str, Any]:
    """Remove a tag, ``NAME:TAG``; what it led to stays. Raises ``TagNotFound``, or ``UsageError`` without one."""
    wanted = parse_reference(name)
    if not wanted.tag or wanted.digest:
        raise UsageError(detail=f"{name!r} names no tag; write NAME:TAG")
    try:
        removed = await remove_tag(lookup, wanted.name, wanted.tag)
    except TagNotFound:
        raise await unknown(lookup, wanted) from None
    return {"name": removed.name, "tag": removed.tag, "manifest": removed.manifest}
