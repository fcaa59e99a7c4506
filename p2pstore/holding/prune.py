"""A prune: the copies that somebody asks for, deleted one after the other, or told of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from p2pstore.errors import CopyStays, MooncakeError, to_wire
from p2pstore.holding.cache import Cache, Key, to_json
from p2pstore.holding.catalog import Holding
from p2pstore.holding.eviction import Copy, Criteria


@dataclass(frozen=True)
class PruneRequest:
    """What is to go: what fits ``criteria``, and of that, where there are any, ``only`` (name, place, manifest).

    With ``last_copies`` what no other node has goes, too.
    """

    criteria: Criteria = field(default_factory=Criteria)
    only: tuple[tuple[str, str, str], ...] | None = None
    dry_run: bool = False
    last_copies: bool = False


async def prune(cache: Cache, request: PruneRequest, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Do it. Returns ``deleted`` and ``kept`` copies, these with an ``error`` each, and the ``bytes`` that went.

    What stays whatever is asked for is among these where it is one of ``only``.
    In a dry run nothing is changed, and ``deleted`` is what would be. ``progress`` hears of copies.
    """
    chosen, staying = await cache.plan(request.criteria)
    if request.only is not None:
        only = set(request.only)
        chosen, staying = ([copy for copy in some if _key(copy) in only] for some in (chosen, staying))
    else:
        staying = []  # nobody asked for these
    deleted: list[dict[str, Any]] = []
    kept = [_kept(copy, CopyStays(path=copy.place, detail=copy.stays)) for copy in staying]
    gone: set[Key] = set()
    size = 0
    for number, copy in enumerate(chosen):
        progress(number, len(chosen))
        key = copy.name, copy.place
        error, freed = await _one(cache, copy, request, gone)
        size += freed
        if error is None:
            gone.add(key)
            deleted.append(to_json(copy))
        else:
            kept.append(_kept(copy, error))
    return {"deleted": deleted, "kept": kept, "bytes": size, "dry_run": request.dry_run}


def _key(copy: Copy) -> tuple[str, str, str]:
    return copy.name, copy.place, copy.manifest


def _kept(copy: Copy, error: MooncakeError) -> dict[str, Any]:
    return {**to_json(copy), "error": to_wire(error)}


async def _one(cache: Cache, copy: Copy, request: PruneRequest, gone: set[Key]) -> tuple[MooncakeError | None, int]:
    """Why a copy is not deleted, if it is not, and the bytes that went."""
    key = copy.name, copy.place
    if request.dry_run:
        fault = await cache.doubt(key, copy.manifest, last_copies=request.last_copies, without=gone)
        return fault, 0 if fault else copy.size
    try:
        return None, (await cache.delete(key, copy.manifest, last_copies=request.last_copies)).bytes
    except MooncakeError as error:
        return error, 0


async def delete_all(
    cache: Cache, holdings: Sequence[Holding], *, last_copies: bool
) -> tuple[bool | None, list[dict[str, Any]]]:
    """Delete copies that somebody named: all of them, or where one has to stay, none. Raises as ``Cache.delete``.

    Returns whether a name went with them, None where that is not known yet, and what went of each.
    """
    keys: list[Key] = [(holding.name, holding.place) for holding in holdings]
    for number, (key, holding) in enumerate(zip(keys, holdings, strict=True)):
        fault = await cache.doubt(
            key, holding.digest, by_name=True, last_copies=last_copies, without=frozenset(keys[:number])
        )
        if fault is not None:
            raise fault
    removed: bool | None = False
    deleted = []
    for key, holding in zip(keys, holdings, strict=True):
        gone = await cache.delete(key, holding.digest, by_name=True, last_copies=last_copies)
        removed = gone.removed if removed is not None else None
        deleted.append({"path": holding.place, "files": gone.files, "bytes": gone.bytes})
    return removed, deleted
