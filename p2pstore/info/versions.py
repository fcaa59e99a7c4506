"""Which versions of an object there are, and what of this node's is not the newest any more."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.errors import MooncakeError
from engine.net.within import within
from p2pstore.cluster import versions
from p2pstore.errors import UsageError
from p2pstore.holding.parts import Parts
from p2pstore.objects.reference import parse_reference

MAX_LOOKED_UP = 2048
LOOK_UP_SECONDS = 3.0
"""Names that are looked up in order to say which holdings are superseded, and for how long."""


async def history(parts: Parts, name: str) -> dict[str, Any]:
    """The versions of an object, the newest first, with tags and holders.

    Raises ``ObjectNotFound``, ``BadName``, and ``UsageError`` for a reference that means one version.
    """
    wanted = parse_reference(name)
    if not wanted.plain:
        raise UsageError(detail=f"{name!r} is one version; the history is that of {wanted.name!r}")
    found = await versions.history(parts.registry, wanted.name)
    if not found:
        raise await parts.registry.missing(wanted.name)
    return {"name": wanted.name, "versions": found}


async def superseded(parts: Parts) -> dict[str, Any]:
    """What of this node's holdings are earlier versions, as far as the metadata store answers soon.

    ``superseded`` is None where it does not. Of many names some are looked up.
    """
    names = list(dict.fromkeys(holding.name for holding in parts.holdings))[:MAX_LOOKED_UP]
    try:
        current = await within(parts.registry.find_all(names), LOOK_UP_SECONDS)
    except (MooncakeError, asyncio.TimeoutError):
        return {"superseded": None}
    older = [h for h in parts.holdings if h.name in current and current[h.name].manifest != h.digest]
    return {"superseded": [{"name": h.name, "manifest": h.digest, "path": h.place} for h in older]}
