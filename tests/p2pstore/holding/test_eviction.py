"""Which copies may go: the rules of a quota, whatever there is and in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from p2pstore.holding.eviction import GOLD, KEPT, PART, REPLICA, REST_SECONDS, Copy, Criteria, Quota, counts

NOW = 1_000_000.0
OLD = NOW - 2 * REST_SECONDS


def copy(name: str = "n", **changes: Any) -> Copy:
    return Copy(**{"name": name, "place": f"/{name}", "manifest": "m", "role": REPLICA, "size": 10, "since": OLD,
                   "written": True, **changes})  # fmt: skip


COPIES = some.lists(
    some.builds(
        Copy,
        name=some.sampled_from("abcdefgh"),
        place=some.integers(0, 10**9).map(str),
        manifest=some.just("m"),
        role=some.sampled_from([GOLD, KEPT, REPLICA, PART]),
        size=some.integers(0, 100),
        since=some.floats(0, NOW),
        used=some.floats(0, NOW),
        pinned=some.booleans(),
        written=some.booleans(),
    ),
    unique_by=lambda each: (each.name, each.place),
    max_size=30,
)
QUOTAS = some.builds(
    lambda size, one, other: Quota(size, max(one, other), min(one, other)),
    some.integers(1, 1000),
    some.floats(0.01, 1),
    some.floats(0.01, 1),
)


def rested(each: Copy) -> bool:
    return NOW - each.last >= REST_SECONDS


@given(COPIES, QUOTAS)
def test_a_quota(copies: list[Copy], quota: Quota) -> None:
    gone = quota.evicted(copies, NOW)
    before = quota.taken(copies)
    after = before - sum(each.size for each in gone)
    assert len({id(each) for each in gone}) == len(gone)
    for each in gone:
        assert each.role == REPLICA
        assert each.written
        assert not each.pinned
        assert rested(each)
    if before <= quota.bytes * quota.high:
        assert gone == []
        return
    could = [each for each in copies if counts(each) and not each.stays and each.size and rested(each)]
    assert after <= quota.bytes * quota.low or len(gone) == len(could)
    # No more than need be: without the last of them it would not be enough.
    if gone:
        assert after + gone[-1].size > quota.bytes * quota.low
    # What was used later stays as long as what was not used for longer.
    stay = [each for each in could if not any(each is other for other in gone)]
    assert not gone or not stay or max(each.last for each in gone) <= min(each.last for each in stay)


@given(COPIES, QUOTAS, some.randoms(use_true_random=False))
def test_it_depends_on_no_order(copies: list[Copy], quota: Quota, chance: Any) -> None:
    shuffled = copies.copy()
    chance.shuffle(shuffled)
    assert quota.evicted(shuffled, NOW) == quota.evicted(copies, NOW)


@given(COPIES, QUOTAS)
def test_done_once_it_is_done(copies: list[Copy], quota: Quota) -> None:
    gone = quota.evicted(copies, NOW)
    left = [each for each in copies if each not in gone]
    again = quota.evicted(left, NOW)
    assert again == []


@given(COPIES, QUOTAS)
def test_what_could_not_go_counts_and_others_go_instead(copies: list[Copy], quota: Quota) -> None:
    first = quota.evicted(copies, NOW)
    if not first:
        return
    passed = {(first[0].name, first[0].place)}
    instead = quota.evicted(copies, NOW, passed)
    assert first[0] not in instead
    assert set(first[1:]) <= set(instead)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"role": GOLD}, "registered"),
        ({"role": GOLD, "written": True}, "registered"),
        ({"role": KEPT}, "kept of a stream"),
        ({"role": PART}, "part of an object"),
        ({"pinned": True}, "pinned"),
        ({"written": False}, "did not write"),
    ],
)
def test_what_stays_whatever_is_asked_for(changes: dict[str, Any], why: str) -> None:
    each = copy(**changes)
    assert why in each.stays
    assert Criteria().chosen([each], NOW) == []
    assert Quota(1).evicted([each], NOW) == []


def test_what_came_or_was_used_just_now_is_let_be() -> None:
    assert Quota(1).evicted([copy(since=NOW - 1)], NOW) == []
    assert Quota(1).evicted([copy(used=NOW - 1)], NOW) == []
    assert Quota(1).evicted([copy()], NOW) == [copy()]


def test_criteria_must_all_fit() -> None:
    old, young = copy("old", used=NOW - 100), copy("young", used=NOW - 10, size=1000)
    there = [young, old]
    assert Criteria().chosen(there, NOW) == [old, young]
    assert Criteria(older_than=50).chosen(there, NOW) == [old]
    assert Criteria(larger_than=1000).chosen(there, NOW) == [young]
    assert Criteria(older_than=50, larger_than=1000).chosen(there, NOW) == []
    assert Criteria(keeps=lambda name: name == "old").chosen(there, NOW) == [young]
