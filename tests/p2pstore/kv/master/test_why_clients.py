"""Each cause that ``why`` knows of clients and of the pool, from the facts that show it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.rpc.codes import Code
from p2pstore.kv.master.facts import CallerFacts, by_host
from p2pstore.kv.master.why_clients import why_callers
from tests.p2pstore.kv.master.why_facts import CALLER, MIB, POOL, SEGMENT, causes

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
