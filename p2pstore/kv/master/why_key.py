"""Why a key cannot be read: from where it lies, or from what became of it, in sentences. Pure.

What is found first explains most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from engine.rpc.codes import Code
from p2pstore.kv.master.advice import ADVICE, MORE_KEYS
from p2pstore.kv.master.facts import EventFact, KeyFacts, PoolFacts, ReplicaFact
from p2pstore.kv.master.findings import Finding, listed
from p2pstore.kv.master.why_pool import LATE, in_use, not_kept, of_memory
from p2pstore.kv.pool.eviction import FOR_KEYS, FOR_QUOTA
from p2pstore.objects.units import format_seconds, format_size

_HASH = re.compile(r"(?:[0-9a-f]{2}){8,}")
"""The part of a key that stands for tokens."""

_EVICTED = {
    FOR_QUOTA: "raise the tenant's quota (--tenant-quotas of the master, or PUT /api/v1/tenant_quotas on its metrics "
    "port while it runs), or pin what must stay",
    FOR_KEYS: MORE_KEYS,
}
"""What to do about values that went for another reason than want of memory."""


def why_key(key: KeyFacts, pool: PoolFacts) -> list[Finding]:
    """What is to be said of a key, whether it can be read or not."""
    found = list(_of_replicas(key, pool))
    if found:
        return found
    if key.aside:
        return [_aside(pool)]
    if key.others:
        return [
            Finding(
                "other-tenant",
                f"it is not there for tenant {key.tenant!r}, but for {listed(map(repr, key.others))}",
                "give writer and reader the same tenant_id",
            )
        ]
    unkept = list(not_kept(pool))
    if key.event is not None:
        unheard = list(of_memory(pool)) if _wanted_room(key.event) else []
        return [*unkept, *unheard, _of_event(key.event, pool)]
    never = Finding(
        "never-put",
        f"nobody has put it, as far back as this master remembers; it has been up for {format_seconds(pool.up)}",
        "run 'mooncake store why' to see whose puts fail",
    )
    near = _alike(key)
    return [*unkept, never] if near is None else [*unkept, never, near]


def _of_replicas(key: KeyFacts, pool: PoolFacts) -> Iterator[Finding]:
    whole = [replica for replica in key.replicas if replica.whole]
    if whole:
        yield from _readable(whole, key, pool)
    elif key.replicas:
        by = f" by {key.event.who}" if key.event and key.event.who else ""
        when = f" {format_seconds(key.event.ago)} ago" if key.event else ""
        yield Finding(
            "writing",
            f"a put of it was begun{when}{by}, and has not ended",
            "it can be read when that put ends; run 'mooncake store why' to see whether its client still lives",
        )


def _readable(whole: Sequence[ReplicaFact], key: KeyFacts, pool: PoolFacts) -> Iterator[Finding]:
    late = [replica for replica in whole if replica.silent > LATE]
    doubtful = [replica for replica in whole if replica.suspected and replica not in late]
    good = [replica for replica in whole if replica not in late and replica not in doubtful]
    if good:
        where = listed(f"{replica.endpoint or 'a file'} ({replica.where})" for replica in good)
        yield Finding("readable", f"it is there: {format_size(whole[0].size)}, at {where}", good=True)
    alone = "its only replica" if len(whole) == 1 else "one of its replicas"
    for replica in doubtful:
        yield Finding(
            "owner-unreachable",
            f"{alone} lies with {replica.endpoint}, which another client could not reach, or which has closed its "
            "connections, and which has not pinged since",
            "see whether that process lives; if it pings, all is well, else its keys are not found in some seconds",
        )
    for replica in late:
        yield Finding(
            "owner-silent",
            f"{alone} lies with {replica.endpoint}, which has not pinged for {format_seconds(replica.silent)}",
            f"see whether that process lives; if not, reads from it fail with {int(Code.TRANSFER_FAILED)} for "
            f"{format_seconds(pool.client_ttl)} after its last ping",
        )
    if key.leased_for > 0:
        yield Finding(
            "leased",
            f"it is leased for another {format_seconds(key.leased_for)}, since somebody looked it up or read it",
            f"until then it is not evicted, and remove is refused with {int(Code.LEASED)}",
            good=True,
        )
    if key.busy:
        yield Finding(
            "busy",
            "it is being copied or moved to other memory",
            f"until that has ended, remove and upsert are refused with {int(Code.HAS_TASK)}",
            good=True,
        )


def _aside(pool: PoolFacts) -> Finding:
    absent = [segment.endpoint for segment in pool.segments if segment.silent > pool.client_ttl]
    names = f" ({listed(absent)})" if absent else ""
    return Finding(
        "owner-absent",
        f"the client that holds it was taken for dead{names}; its keys are kept aside in case it comes back",
        "see whether that process lives: its first ping brings them back; else put it again",
    )


def _of_event(event: EventFact, pool: PoolFacts) -> Finding:
    ago = f"{format_seconds(event.ago)} ago"
    by = f" by {event.who}" if event.who else ""
    match event.what:
        case "evicted":
            reason = f" ({event.detail})" if event.detail else ""
            more = "give the pool more memory (global_segment_size of its clients), or pin what must stay"
            advice = _EVICTED.get(event.detail, more)
            return Finding("evicted", f"it was evicted {ago}{reason}; {in_use(pool)}", advice)
        case "removed":
            return Finding("removed", f"it was removed {ago}{by}", "put it again, or see what there removes keys")
        case "revoked":
            return Finding(
                "revoked",
                f"a put of it was given up {ago}{by}: its bytes could not be written",
                "see whether the writer reaches the data port of the client whose memory it was given",
            )
        case "discarded":
            return Finding(
                "discarded",
                f"a put of it was begun{by} and never ended; it was discarded {ago}",
                "see whether the writer died or stood still in the middle of it",
            )
        case "lost":
            return Finding(
                "lost",
                f"the memory to which it was being written{by} left the pool {ago}",
                "put it again; see whether the client whose memory that was still runs",
            )
        case "unmounted":
            detail = f" ({event.detail})" if event.detail else ""
            return Finding(
                "unmounted",
                f"the memory that it lay in left the pool {ago}{detail}",
                "put it again; with a replica_num of 2 a key outlives one client",
            )
        case "refused":
            return _refused(event, ago, by, pool)
    return Finding("writing", f"a put of it was begun {ago}{by}, and nothing of it is left", "put it again")


def _wanted_room(event: EventFact) -> bool:
    return event.what == "refused" and event.detail in {Code.NO_SPACE.name, str(int(Code.NO_SPACE))}


def _refused(event: EventFact, ago: str, by: str, pool: PoolFacts) -> Finding:
    code = next((each for each in Code if event.detail in {each.name, str(int(each))}), None)
    said = f"{int(code)}: {code.sentence}" if code else event.detail
    advice = ADVICE.get(code, "") if code else ""
    return Finding("refused", f"a put of it{by} was refused {ago} with {said}; {in_use(pool)}", advice)


def _alike(key: KeyFacts) -> Finding | None:
    """What tells the key from one that is there, where that is one part of it."""
    parts = key.key.split("@")
    for other in key.known:
        theirs = other.split("@")
        if len(theirs) != len(parts) or len(parts) < 2:
            continue
        different = [(a, b) for a, b in zip(parts, theirs, strict=True) if a != b]
        if len(different) != 1:
            continue
        mine, its = different[0]
        if _HASH.fullmatch(mine) and _HASH.fullmatch(its):
            return Finding(
                "other-hash",
                f"other keys are there that differ in the hash of the tokens alone, such as {other!r}",
                "other text has other hashes; for the same text compare block size, cache_salt and PYTHONHASHSEED of "
                "both engines",
            )
        return Finding(
            "other-name",
            f"there is a key that has {its!r} where this one has {mine!r}, and is the same otherwise",
            "the model's name, the parallel sizes and the type of the cache must be the same in both engines",
        )
    return None
