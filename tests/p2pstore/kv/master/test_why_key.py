"""Each cause that ``why KEY`` knows, from the facts that show it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pstore.kv.master.why_key import why_key
from p2pstore.kv.pool import eviction
from tests.p2pstore.kv.master.why_facts import KEY, POOL, REPLICA, SEGMENT, causes, event

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
