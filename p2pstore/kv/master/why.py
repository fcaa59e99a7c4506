"""Why a key cannot be read, why a put fails, why the hit rate is 0: from what the master has seen, in sentences. Pure.

Each cause has a word for scripts, a sentence, and advice. What is found first explains most.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from engine.rpc.codes import Code
from p2pstore.kv.master.advice import ADVICE, ENDED, MORE_KEYS, NOT_KEPT
from p2pstore.kv.master.facts import CallerFacts, EventFact, KeyFacts, PoolFacts, ReplicaFact, by_host, host_of
from p2pstore.kv.pool.eviction import FOR_KEYS, FOR_QUOTA
from p2pstore.objects.units import format_seconds, format_size

LATE = 3.0
"""Seconds without a ping, which comes each second, after which a client is said to be silent."""

FULL = 0.95
"""Of the pool's memory in use, from which it is called full."""

FEW_HITS = 0.05
"""Share of lookups that found something, below which somebody may wonder."""

MAX_SHOWN = 5
"""Names that a sentence lists."""

_Name = TypeVar("_Name", str, int)

_HASH = re.compile(r"(?:[0-9a-f]{2}){8,}")
"""The part of a key that stands for tokens."""

_EVICTED = {
    FOR_QUOTA: "raise the tenant's quota (--tenant-quotas of the master, or PUT /api/v1/tenant_quotas on its metrics "
    "port while it runs), or pin what must stay",
    FOR_KEYS: MORE_KEYS,
}
"""The same about values that went for another reason than want of memory."""


class Finding(NamedTuple):
    """One answer: a word for the cause, what is so, and what to do about it; ``good`` where nothing is wrong."""

    cause: str
    text: str
    advice: str = ""
    good: bool = False


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
                f"it is not there for tenant {key.tenant!r}, but for {_listed(map(repr, key.others))}",
                "give writer and reader the same tenant_id",
            )
        ]
    not_kept = list(_not_kept(pool))
    if key.event is not None:
        unheard = list(_of_memory(pool)) if _wanted_room(key.event) else []
        return [*not_kept, *unheard, _of_event(key.event, pool)]
    never = Finding(
        "never-put",
        f"nobody has put it, as far back as this master remembers; it has been up for {format_seconds(pool.up)}",
        "run 'mooncake store why' to see whose puts fail",
    )
    near = _alike(key)
    return [*not_kept, never] if near is None else [*not_kept, never, near]


def why_callers(callers: Sequence[CallerFacts], pool: PoolFacts, asked: str = "") -> list[Finding]:
    """What is to be said of the pool and of its clients, or of the one that is ``asked`` about, by address or host."""
    callers = [caller for caller in callers if caller.spoke]
    chosen = by_host(caller for caller in callers if asked in {"", caller.address, host_of(caller.address)})
    found = list(_of_pool(pool))
    if not chosen:
        return [_nobody(pool, asked, callers), *found]
    for caller in chosen:
        found += _of_caller(caller, pool)
    if found:
        return found
    connections = _count(sum(each.connections for each in chosen), "connection")
    text = f"nothing is wrong with {connections}, as far as the master sees"
    return [Finding("nothing", text, "'mooncake store why KEY' says what became of one key", good=True)]


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
        where = _listed(f"{replica.endpoint or 'a file'} ({replica.where})" for replica in good)
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
    names = f" ({_listed(absent)})" if absent else ""
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
            return Finding("evicted", f"it was evicted {ago}{reason}; {_use(pool)}", advice)
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
    return Finding("refused", f"a put of it{by} was refused {ago} with {said}; {_use(pool)}", advice)


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


def _of_pool(pool: PoolFacts) -> Iterator[Finding]:
    yield from _not_kept(pool)
    yield from _of_memory(pool)
    if pool.refused and pool.size and pool.used >= FULL * pool.size:
        yield Finding(
            "full",
            f"{_count(pool.refused, 'put')} found no room; {_use(pool)}",
            "give the pool more memory; what is leased or hard-pinned cannot be evicted for a put",
        )
    if pool.evicted > pool.keys and pool.evicted > pool.puts / 2:
        yield Finding(
            "churn",
            f"of {_count(pool.puts, 'value')} put, {pool.evicted:,} were evicted again; {_use(pool)}",
            "the pool is too small for what is put into it: give it more memory, or put less",
        )


def _not_kept(pool: PoolFacts) -> Iterator[Finding]:
    if pool.not_kept:
        yield Finding(
            "not-kept",
            f"the master cannot keep its state ({pool.not_kept}), so every put fails with {int(Code.PERSIST_FAILED)}",
            NOT_KEPT,
        )


def _of_memory(pool: PoolFacts) -> Iterator[Finding]:
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
            f"{_listed(each.endpoint for each in drained)}, which a drain job empties or has emptied",
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


def _nobody(pool: PoolFacts, asked: str, callers: Sequence[CallerFacts]) -> Finding:
    who = f"no client at {asked} has" if asked else "no client has"
    advice = "the clients' master_server_address must be this master's host and port"
    if _only_loopback(pool.listens):
        advice = "it listens on loopback alone, which no other host reaches; start it with another --listen"
    elif asked and callers:
        advice += f"; others call from {_listed({host_of(each.address) for each in callers})}"
    return Finding(
        "no-call", f"{who} called this master at {pool.listens} in the {format_seconds(pool.up)} since it started",
        advice,
    )  # fmt: skip


def _of_caller(caller: CallerFacts, pool: PoolFacts) -> Iterator[Finding]:
    who = f"{caller.address} (version {caller.version or 'not known'})"
    if not caller.connected and caller.calls:
        ago = format_seconds(caller.last_ago)
        yield Finding("gone", f"{who} is not connected; it last called {ago} ago", "see whether it still runs")
    if caller.unknown:
        names = _listed(f"{name} ({count})" for name, count in _most(caller.unknown.items()))
        yield Finding(
            "unknown-calls",
            f"{who} made {_count(sum(caller.unknown.values()), 'call')} that this master does not know: {names}",
            "what depends on them fails there; its version may be newer than those that this master knows",
        )
    if caller.malformed:
        yield Finding(
            "malformed",
            f"{caller.address} sent what is no call of the store, {_count(caller.malformed, 'time')}",
            "what connects there is no client of the store: a browser, a monitor or a scanner, say",
        )
    for word, count in _most(caller.turned_away.items()):
        ended = ENDED[word]
        often = "" if count == 1 else f", {_count(count, 'time')}"
        yield Finding(word, f"{who} {ended.text}{often}", ended.advice)
    for number, count in _most(caller.failures.items()):
        code = Code.of(number)
        if code in {Code.NOT_FOUND, Code.EXISTS}:
            continue  # a miss is no failure, nor is a put of what is there
        yield Finding(
            f"failed{number}",
            f"{_count(count, 'call')} of {who} failed with {number}: {code.sentence}",
            ADVICE.get(code, ""),
        )
    if caller.lookups and caller.found <= FEW_HITS * caller.lookups:
        yield _no_hits(caller, pool, who)


def _no_hits(caller: CallerFacts, pool: PoolFacts, who: str) -> Finding:
    looked = f"{who} asked for {_count(caller.lookups, 'key')}, and {caller.found:,} were there"
    strange = sorted(set(caller.tenants) - set(pool.tenants))
    if not pool.puts:
        return Finding("no-hits", f"{looked}: nobody has put anything yet", "see whether the writers reach this master")
    if strange and pool.tenants and not set(caller.tenants) & set(pool.tenants):
        return Finding(
            "other-tenant",
            f"{looked}: it asks as tenant {_listed(map(repr, strange))}, and all keys are those of "
            f"{_listed(map(repr, pool.tenants))}",
            "give writers and readers the same tenant_id",
        )
    return Finding(
        "no-hits",
        f"{looked}; the store has {_count(pool.keys, 'key')}",
        "run 'mooncake store why KEY' with a key that it asks for: its writers may name the keys otherwise",
    )


def _only_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(host_of(address)).is_loopback
    except ValueError:
        return False


def _use(pool: PoolFacts) -> str:
    if not pool.size:
        return "no client gives memory now"
    return f"{format_size(pool.used)} of {format_size(pool.size)} are in use now"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _most(counts: Iterable[tuple[_Name, int]]) -> list[tuple[_Name, int]]:
    return sorted(counts, key=lambda each: -each[1])[:MAX_SHOWN]


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - MAX_SHOWN} more" if len(shown) > MAX_SHOWN else ""
    return ", ".join(shown[:MAX_SHOWN]) + more
