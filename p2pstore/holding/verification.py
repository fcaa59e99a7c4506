"""A verify, as somebody asks for it: what was named is hashed again, and withdrawn where it is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from p2pstore.holding import meant
from p2pstore.holding.bad_chunks import verify_holding
from p2pstore.holding.parts import Parts

log = logging.getLogger(__name__)


async def verify(parts: Parts, target: str, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Hash again what this node holds under a name or at an absolute path. What is wrong is withdrawn.

    ``progress`` hears of bytes. Returns as ``verify_holding``, with ``superseded``, and who the name is
    ``replaced_by``. Raises as ``meant.holding_of`` and ``verify_holding``.
    """
    holding = await meant.holding_of(parts, target)
    manifest = parts.holdings.manifest(holding.digest)
    assert manifest is not None  # noqa: S101 - a holding has its manifest
    with parts.counts.verifies.one():
        result = await verify_holding(holding, manifest, progress)
    if not result["ok"]:
        log.warning("%s is withdrawn: %s has wrong bytes", holding.name, holding.place)
        await parts.publisher.give_up(holding, "it was verified, and has wrong bytes")
    result["replaced_by"] = await meant.replaced_by(parts, holding.name, holding.digest)
    result["superseded"] = bool(result["replaced_by"])
    return result
