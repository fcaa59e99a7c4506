"""Why nothing can be put, whoever does: what is amiss with the pool itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from engine.rpc.codes import Code
from p2pstore.kv.master.advice import NOT_KEPT
from p2pstore.kv.master.facts import PoolFacts
from p2pstore.kv.master.findings import Finding, counted, listed
from p2pstore.objects.units import format_seconds, format_size

LATE = 3.0
"""Seconds without a ping, which comes each second, after which a client is said to be silent."""

FULL = 0.95
"""Of the pool's memory in use, from which it is called full."""


def of_pool(pool: PoolFacts) -> Iterator[Finding]:
    """All that is amiss."""
    yield from not_kept(pool)
    yield from of_memory(pool)
    if pool.refused and pool.size and pool.used >= FULL * pool.size:
        yield Finding(
            "full",
            f"{counted(pool.refused, 'put')} found no room; {in_use(pool)}",
            "give the pool more memory; what is leased or hard-pinned cannot be evicted for a put",
        )
    if pool.evicted > pool.keys and pool.evicted > pool.puts / 2:
        yield Finding(
            "churn",
            f"of {counted(pool.puts, 'value')} put, {pool.evicted:,} were evicted again; {in_use(pool)}",
            "the pool is too small for what is put into it: give it more memory, or put less",
        )


def not_kept(pool: PoolFacts) -> Iterator[Finding]:
    """Whether the master's state cannot be kept."""
    if pool.not_kept:
        yield Finding(
            "not-kept",
            f"the master cannot keep its state ({pool.not_kept}), so every put fails with {int(Code.PERSIST_FAILED)}",
            NOT_KEPT,
        )


def of_memory(pool: PoolFacts) -> Iterator[Finding]:
    """Why there may be no room though little is in use."""
    if not pool.segments:
        yield Finding(
            "no-memory",
            "no client gives memory to the pool, so every put fails",
            "start a client with a global_segment_size above 0",
        )
    drained = [segment for segment in pool.segments if segment.drained]
    if drained:
        yield Finding(
            "drained",
            f"nothing new is put into the {format_size(sum(each.size for each in drained))} of "
            f"{listed(each.endpoint for each in drained)}, which a drain job empties or has emptied",
            "once they are empty end those clients; they are filled again when they are started anew",
        )
    for segment in pool.segments:
        if segment.silent > LATE:
            yield Finding(
                "owner-silent",
                f"{segment.endpoint} gives {format_size(segment.size)}, and has not pinged for "
                f"{format_seconds(segment.silent)}",
                f"see whether that process lives; {format_seconds(pool.client_ttl)} after its last ping its keys are "
                "not found any more",
            )


def in_use(pool: PoolFacts) -> str:
    """How much of its memory is."""
    if not pool.size:
        return "no client gives memory now"
    return f"{format_size(pool.used)} of {format_size(pool.size)} are in use now"
