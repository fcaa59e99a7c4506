"""Each cause that ``why`` knows, from the facts that show it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.rpc.codes import Code
from p2pstore.kv.master.facts import (
    CallerFacts,
    EventFact,
    KeyFacts,
    PoolFacts,
    ReplicaFact,
    SegmentFact,
    by_host,
)
from p2pstore.kv.master.why import Finding, why_callers, why_key
from p2pstore.kv.pool import eviction

MIB = 1 << 20
SEGMENT = SegmentFact("10.0.0.2:12001", "10.0.0.2:12001", "", 64 * MIB, 8 * MIB, 0.4)
POOL = PoolFacts("10.0.0.1:50051", 3600.0, (SEGMENT,), keys=10, puts=10, tenants=("default",))
KEY = KeyFacts("llama@tp_rank:0@" + "ab" * 16, "default")
REPLICA = ReplicaFact("10.0.0.2:12001", "memory", 4096, True, 0.4)
CALLER = CallerFacts("10.0.0.3:40000", "0.3.13", calls=100, lookups=50, found=40, tenants=("default",))


def causes(found: list[Finding]) -> list[str]:
    return [finding.cause for finding in found]


def event(what: str, detail: str = "", who: str = "10.0.0.3:40000") -> KeyFacts:
    return replace(KEY, event=EventFact(what, 90.0, who, detail))


KEYS = {
    "readable": (replace(KEY, replicas=[REPLICA]), ["readable"], "it is there: 4.0 KiB, at 10.0.0.2:12001 (memory)"),
    "leased": (
        replace(KEY, replicas=[REPLICA], leased_for=8.0),
        ["readable", "leased"],
        "leased for another 8.0 s",
    ),
    "being moved": (replace(KEY, replicas=[REPLICA], busy=True), ["readable", "busy"], "it is being copied or moved"),
    "its owner is silent": (
        replace(KEY, replicas=[REPLICA._replace(silent=7.0)]),
        ["owner-silent"],
        "its only replica lies with 10.0.0.2:12001, which has not pinged for 7.0 s",
    ),
    "one of two owners is silent": (
        replace(KEY, replicas=[REPLICA, REPLICA._replace(endpoint="10.0.0.4:1", silent=7.0)]),
        ["readable", "owner-silent"],
        "one of its replicas lies with 10.0.0.4:1",
    ),
    "somebody could not reach its owner": (
        replace(KEY, replicas=[REPLICA._replace(suspected=True)]),
        ["owner-unreachable"],
        "its only replica lies with 10.0.0.2:12001, which another client could not reach",
    ),
    "one of two owners is silent, the other was not reached": (
        replace(KEY, replicas=[REPLICA._replace(suspected=True), REPLICA._replace(silent=7.0, suspected=True)]),
        ["owner-unreachable", "owner-silent"],
        "one of its replicas",
    ),
    "being written": (
        replace(event("put_start"), replicas=[REPLICA._replace(whole=False)]),
        ["writing"],
        "begun 1 min 30 s ago by 10.0.0.3:40000, and has not ended",
    ),
    "another tenant's": (
        replace(KEY, others=["red"]),
        ["other-tenant"],
        "not there for tenant 'default', but for 'red'",
    ),
    "evicted": (
        event("evicted", "above the watermark"),
        ["evicted"],
        "1 min 30 s ago (above the watermark); 8.0 MiB of",
    ),
    "its owner is absent": (replace(KEY, aside=True), ["owner-absent"], "the client that holds it was taken for dead;"),
    "evicted for its tenant's quota": (
        event("evicted", eviction.FOR_QUOTA),
        ["evicted"],
        "1 min 30 s ago (the tenant's quota is used up)",
    ),
    "removed": (event("removed"), ["removed"], "removed 1 min 30 s ago by 10.0.0.3:40000"),
    "given up": (event("revoked"), ["revoked"], "its bytes could not be written"),
    "discarded": (event("discarded"), ["discarded"], "begun by 10.0.0.3:40000 and never ended"),
    "its memory went while it was written": (
        event("lost"),
        ["lost"],
        "was being written by 10.0.0.3:40000 left the pool",
    ),
    "its memory went": (
        event("unmounted", "10.0.0.9:1: its owner took it back"),
        ["unmounted"],
        "the memory that it lay in left the pool 1 min 30 s ago (10.0.0.9:1: its owner took it back)",
    ),
    "refused": (event("refused", "NO_SPACE"), ["refused"], "refused 1 min 30 s ago with -200: no segment has room"),
    "refused by number": (event("refused", "-200"), ["refused"], "with -200: no segment has room"),
    "begun, and nothing is left": (event("put_start"), ["writing"], "nothing of it is left"),
    "never put": (KEY, ["never-put"], "nobody has put it, as far back as this master remembers"),
    "another hash": (
        replace(KEY, known=["other", "llama@tp_rank:0@" + "cd" * 16]),
        ["never-put", "other-hash"],
        "differ in the hash of the tokens alone",
    ),
    "another model": (
        replace(KEY, known=["llama2@tp_rank:0@" + "ab" * 16]),
        ["never-put", "other-name"],
        "has 'llama2' where this one has 'llama'",
    ),
    "nothing alike": (replace(KEY, known=["llama2@tp_rank:1@" + "cd" * 16, "x", "a@b"]), ["never-put"], "nobody"),
}


@pytest.mark.parametrize(
    ("detail", "advice"),
    [
        ("above the watermark", "give the pool more memory"),
        (eviction.FOR_QUOTA, "raise the tenant's quota"),
        (eviction.FOR_KEYS, "raise --max-keys of the master; where it has fewer keys than that, its index takes all"),
    ],
)
def test_the_advice_fits_why_a_value_went(detail: str, advice: str) -> None:
    (finding,) = why_key(event("evicted", detail), POOL)
    assert finding.advice.startswith(advice)


@pytest.mark.parametrize("case", KEYS)
def test_a_key(case: str) -> None:
    key, expected, text = KEYS[case]
    found = why_key(key, POOL)
    assert causes(found) == expected
    assert text in " ".join(finding.text for finding in found)
    assert all(finding.good or finding.advice for finding in found)


CALLERS = {
    "all is well": (CALLER, POOL, ["nothing"], "nothing is wrong with 1 connection"),
    "unknown calls": (
        replace(CALLER, version="0.3.14", unknown={"FlyToTheMoon": 3, "0xdeadbeef": 1}),
        POOL,
        ["unknown-calls"],
        "10.0.0.3:40000 (version 0.3.14) made 4 calls that this master does not know: FlyToTheMoon (3), 0xdeadbeef (1)",
    ),
    "no version is known": (
        replace(CALLER, version="", unknown={"X": 1}),
        POOL,
        ["unknown-calls"],
        "(version not known) made 1 call that",
    ),
    "refused puts": (
        replace(CALLER, failures={int(Code.NO_SPACE): 7}),
        POOL,
        ["failed-200"],
        "7 calls of 10.0.0.3:40000 (version 0.3.13) failed with -200: no segment has room",
    ),
    "values that were not kept": (
        replace(CALLER, failures={int(Code.PERSIST_FAILED): 2}),
        POOL,
        ["failed-1503"],
        "2 calls of 10.0.0.3:40000 (version 0.3.13) failed with -1503: it could not be kept on disk",
    ),
    "a value that is being moved": (
        replace(CALLER, failures={int(Code.HAS_TASK): 1}),
        POOL,
        ["failed-708"],
        "1 call of 10.0.0.3:40000 (version 0.3.13) failed with -708: a replica of the value is being copied",
    ),
    "misses are no failures": (
        replace(CALLER, failures={int(Code.NOT_FOUND): 7, int(Code.EXISTS): 2}),
        POOL,
        ["nothing"],
        "nothing is wrong",
    ),
    "no calls at all": (
        CallerFacts("10.0.0.3:1", "", malformed=2),
        POOL,
        ["malformed"],
        "10.0.0.3:1 sent what is no call of the store, 2 times",
    ),
    "no calls, and gone": (CallerFacts("10.0.0.3:1", "", connected=0, malformed=1), POOL, ["malformed"], "no call of"),
    "a probe": (CallerFacts("10.0.0.3:1", "", connected=0), POOL, ["no-call"], "no client has called"),
    "gone": (replace(CALLER, connected=0, last_ago=12.0), POOL, ["gone"], "is not connected; it last called 12 s ago"),
    "no hits": (
        replace(CALLER, lookups=1000, found=0),
        POOL,
        ["no-hits"],
        "asked for 1,000 keys, and 0 were there; the store has 10 keys",
    ),
    "nobody puts": (
        replace(CALLER, lookups=10, found=0),
        replace(POOL, puts=0, keys=0, tenants=()),
        ["no-hits"],
        "nobody has put anything yet",
    ),
    "another tenant": (
        replace(CALLER, lookups=10, found=0, tenants=("red",)),
        POOL,
        ["other-tenant"],
        "it asks as tenant 'red', and all keys are those of 'default'",
    ),
    "no memory": (CALLER, replace(POOL, segments=()), ["no-memory"], "no client gives memory to the pool"),
    "a state that is not kept": (
        CALLER,
        replace(POOL, not_kept="no space left on device"),
        ["not-kept"],
        "cannot keep its state (no space left on device), so every put fails with -1503",
    ),
    "memory that is being emptied": (
        CALLER,
        replace(POOL, segments=(SEGMENT._replace(drained=True), SEGMENT)),
        ["drained"],
        "nothing new is put into the 64.0 MiB of 10.0.0.2:12001, which a drain job empties or has emptied",
    ),
    "a silent owner": (
        CALLER,
        replace(POOL, segments=(SEGMENT._replace(silent=6.0),)),
        ["owner-silent"],
        "10.0.0.2:12001 gives 64.0 MiB, and has not pinged for 6.0 s",
    ),
    "a full pool": (
        CALLER,
        replace(POOL, segments=(SEGMENT._replace(used=63 * MIB),), refused=3),
        ["full"],
        "3 puts found no room; 63.0 MiB of 64.0 MiB are in use now",
    ),
    "a pool that is too small": (
        CALLER,
        replace(POOL, keys=10, puts=1000, evicted=990),
        ["churn"],
        "of 1,000 values put, 990 were evicted again",
    ),
}


@pytest.mark.parametrize("case", CALLERS)
def test_a_client(case: str) -> None:
    caller, pool, expected, text = CALLERS[case]
    found = why_callers([caller], pool)
    assert causes(found) == expected
    assert text in " ".join(finding.text for finding in found)
    assert all(finding.good or finding.advice for finding in found)


def test_the_client_that_was_asked_about_is_found_by_host_and_by_address() -> None:
    other = replace(CALLER, address="10.0.0.4:40000", unknown={"X": 1})
    assert causes(why_callers([CALLER, other], POOL, "10.0.0.3")) == ["nothing"]
    assert causes(why_callers([CALLER, other], POOL, "10.0.0.4:40000")) == ["unknown-calls"]
    assert causes(why_callers([CALLER, other], POOL)) == ["unknown-calls"]


def test_the_connections_of_one_host_and_version_are_one() -> None:
    """Upstream's client opens several, and some for one call alone."""
    more = replace(CALLER, address="10.0.0.3:40001", connected=0, last_ago=3.0, lookups=1, unknown={"X": 1})
    older = replace(CALLER, address="10.0.0.3:40002", version="0.3.9")
    assert causes(why_callers([CALLER, replace(more, unknown={})], POOL)) == ["nothing"]
    (found,) = why_callers([CALLER, more, older], POOL)
    assert found.text.startswith("10.0.0.3 (version 0.3.13) made 1 call")
    together, other = by_host([CALLER, more, older])
    assert (together.address, together.connected, together.connections, together.last_ago) == ("10.0.0.3", 1, 2, 0.0)
    assert (together.calls, together.lookups, together.found) == (200, 51, 80)
    assert other is older


def test_a_client_that_never_called_may_be_told_another_address() -> None:
    (found,) = why_callers([CALLER], POOL, "10.0.0.9")
    assert found.cause == "no-call"
    assert (
        found.text == "no client at 10.0.0.9 has called this master at 10.0.0.1:50051 in the 1 h 0 min since it started"
    )
    assert found.advice.endswith("others call from 10.0.0.3")


def test_nobody_reaches_a_master_on_loopback_from_elsewhere() -> None:
    (found,) = why_callers([], replace(POOL, listens="127.0.0.1:50051"))
    assert found.text.startswith("no client has called")
    assert "loopback" in found.advice
    assert "--listen" in found.advice


def test_a_put_that_found_no_room_since_nobody_gives_any() -> None:
    refused = event("refused", "NO_SPACE")
    assert causes(why_key(refused, replace(POOL, segments=()))) == ["no-memory", "refused"]
    silent = replace(POOL, segments=(SEGMENT._replace(silent=6.0),))
    assert causes(why_key(refused, silent)) == ["owner-silent", "refused"]
    assert causes(why_key(event("refused", "QUOTA"), silent)) == ["refused"]
    assert causes(why_key(event("removed"), silent)) == ["removed"]


def test_an_absent_owner_is_named() -> None:
    (found,) = why_key(replace(KEY, aside=True), replace(POOL, segments=(SEGMENT._replace(silent=60.0),)))
    assert "taken for dead (10.0.0.2:12001)" in found.text
