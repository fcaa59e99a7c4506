"""Why puts fail and the hit rate is 0: what is to be said of the pool's clients, from what the master has seen. Pure.

What is found first explains most.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from engine.rpc.codes import Code
from p2pstore.kv.master.advice import ADVICE, ENDED
from p2pstore.kv.master.facts import CallerFacts, PoolFacts, by_host, host_of
from p2pstore.kv.master.findings import Finding, counted, listed, most
from p2pstore.kv.master.why_pool import of_pool
from p2pstore.objects.units import format_seconds

FEW_HITS = 0.05
"""Share of lookups that found something, below which somebody may wonder."""


def why_callers(callers: Sequence[CallerFacts], pool: PoolFacts, asked: str = "") -> list[Finding]:
    """What is to be said of the pool and of its clients, or of the one that is ``asked`` about, by address or host."""
    callers = [caller for caller in callers if caller.spoke]
    chosen = by_host(caller for caller in callers if asked in {"", caller.address, host_of(caller.address)})
    found = list(of_pool(pool))
    if not chosen:
        return [_nobody(pool, asked, callers), *found]
    for caller in chosen:
        found += _of_caller(caller, pool)
    if found:
        return found
    connections = counted(sum(each.connections for each in chosen), "connection")
    text = f"nothing is wrong with {connections}, as far as the master sees"
    return [Finding("nothing", text, "'mooncake store why KEY' says what became of one key", good=True)]


def _nobody(pool: PoolFacts, asked: str, callers: Sequence[CallerFacts]) -> Finding:
    who = f"no client at {asked} has" if asked else "no client has"
    advice = "the clients' master_server_address must be this master's host and port"
    if _only_loopback(pool.listens):
        advice = "it listens on loopback alone, which no other host reaches; start it with another --listen"
    elif asked and callers:
        advice += f"; others call from {listed({host_of(each.address) for each in callers})}"
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
        names = listed(f"{name} ({count})" for name, count in most(caller.unknown.items()))
        yield Finding(
            "unknown-calls",
            f"{who} made {counted(sum(caller.unknown.values()), 'call')} that this master does not know: {names}",
            "what depends on them fails there; its version may be newer than those that this master knows",
        )
    if caller.malformed:
        yield Finding(
            "malformed",
            f"{caller.address} sent what is no call of the store, {counted(caller.malformed, 'time')}",
            "what connects there is no client of the store: a browser, a monitor or a scanner, say",
        )
    for word, count in most(caller.turned_away.items()):
        ended = ENDED[word]
        often = "" if count == 1 else f", {counted(count, 'time')}"
        yield Finding(word, f"{who} {ended.text}{often}", ended.advice)
    for number, count in most(caller.failures.items()):
        code = Code.of(number)
        if code in {Code.NOT_FOUND, Code.EXISTS}:
            continue  # a miss is no failure, nor is a put of what is there
        yield Finding(
            f"failed{number}",
            f"{counted(count, 'call')} of {who} failed with {number}: {code.sentence}",
            ADVICE.get(code, ""),
        )
    if caller.lookups and caller.found <= FEW_HITS * caller.lookups:
        yield _no_hits(caller, pool, who)


def _no_hits(caller: CallerFacts, pool: PoolFacts, who: str) -> Finding:
    looked = f"{who} asked for {counted(caller.lookups, 'key')}, and {caller.found:,} were there"
    strange = sorted(set(caller.tenants) - set(pool.tenants))
    if not pool.puts:
        return Finding("no-hits", f"{looked}: nobody has put anything yet", "see whether the writers reach this master")
    if strange and pool.tenants and not set(caller.tenants) & set(pool.tenants):
        return Finding(
            "other-tenant",
            f"{looked}: it asks as tenant {listed(map(repr, strange))}, and all keys are those of "
            f"{listed(map(repr, pool.tenants))}",
            "give writers and readers the same tenant_id",
        )
    return Finding(
        "no-hits",
        f"{looked}; the store has {counted(pool.keys, 'key')}",
        "run 'mooncake store why KEY' with a key that it asks for: its writers may name the keys otherwise",
    )


def _only_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(host_of(address)).is_loopback
    except ValueError:
        return False
