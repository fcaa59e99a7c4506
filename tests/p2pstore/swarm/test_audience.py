"""Who follows a replica hears once of each change in who shares it, and is granted what its part in that allows."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.swarm.audience import MAX_LISTENERS, Audience

LENGTHS = [1 << 20] * 6
STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.booleans()), max_size=40)


def audience() -> Audience:
    return Audience(lambda: LENGTHS, random.Random(1))


def granted(crowd: Audience) -> dict[str, list[range | None]]:
    """What is granted now, by follower."""
    found: dict[str, list[range | None]] = {}
    for grant in crowd.granter.grants(0.0):
        found.setdefault(grant.key, []).append(grant.run)
    return found


@given(STEPS)
def test_who_shares_an_origin_knows_it(story: list[tuple[str, bool, bool]]) -> None:
    """Each knows, from joining and from what it was told, whether another that passes chunks on follows the origin."""
    crowd = audience()
    there: dict[str, tuple[bool, bool]] = {}
    knows: dict[str, bool] = {}
    for key, seeds, whole in story:
        if key in there:
            del there[key], knows[key]
            told = crowd.leave(key)
        else:
            there[key] = seeds, whole
            told = crowd.join(key, seeds=seeds, whole=whole, grants=True)
            assert key not in told
            knows[key] = crowd.shared(key)
        assert len(set(told)) == len(told)
        for each in told:
            assert knows[each] != crowd.shared(each), "nobody is told what it knows"
            knows[each] = crowd.shared(each)
        for each, (_, takes_for_origin) in there.items():
            others = any(seeding for other, (seeding, _) in there.items() if other != each)
            assert knows[each] == (takes_for_origin and others)
        assert len(crowd) == len(there)
        assert crowd.seeding == sum(seeding for seeding, _ in there.values())


def test_a_crowd_is_full() -> None:
    crowd = audience()
    for number in range(MAX_LISTENERS):
        assert not crowd.full
        crowd.join(str(number), seeds=False, whole=False, grants=True)
    assert crowd.full
    crowd.leave("0")
    assert not crowd.full


def test_who_leaves_twice_or_never_came_changes_nothing() -> None:
    crowd = audience()
    crowd.join("a", seeds=True, whole=True, grants=True)
    crowd.join("b", seeds=True, whole=True, grants=True)
    assert crowd.leave("b") == ["a"]
    assert crowd.leave("b") == crowd.leave("nobody") == []
    assert (len(crowd), crowd.seeding) == (1, 1)


def test_one_of_an_earlier_version_never_hears_that_it_shares_and_is_granted_nothing() -> None:
    crowd = audience()
    crowd.join("old", seeds=True, whole=True, grants=False)
    assert crowd.join("new", seeds=True, whole=True, grants=True) == []
    assert not crowd.shared("old"), "it asks for what it likes"
    assert crowd.shared("new")
    assert not crowd.speaks("old")
    assert not crowd.speaks("nobody")
    assert crowd.speaks("new")
    assert granted(crowd).keys() == {"new"}


def test_who_is_alone_with_an_origin_is_granted_nothing_and_who_shares_it_is() -> None:
    crowd = audience()
    crowd.join("a", seeds=True, whole=True, grants=True)
    assert crowd.speaks("a")
    assert granted(crowd) == {}
    crowd.join("b", seeds=True, whole=True, grants=True)
    (run,) = granted(crowd)["a"]
    assert run, "it names what it never sent"
    assert crowd.speaks("b")
    assert granted(crowd).keys() == {"b"}
    crowd.leave("b")
    assert "a" not in crowd.granter, "it asks for what it likes again"


def test_of_a_part_there_are_grants_for_one_alone_and_no_names() -> None:
    crowd = audience()
    crowd.join("a", seeds=True, whole=False, grants=True)
    assert granted(crowd) == {}, "not before it is heard"
    assert crowd.speaks("a")
    assert granted(crowd) == {"a": [None]}


def test_of_nothing_nothing_is_granted_before_there_is_news() -> None:
    crowd = audience()
    crowd.join("a", seeds=True, whole=False, grants=True)
    crowd.speaks("a", empty=True)
    assert granted(crowd) == {}
    crowd.granter.told()
    assert granted(crowd) == {"a": [None]}


def test_who_is_heard_no_more_holds_no_grant() -> None:
    crowd = audience()
    crowd.join("a", seeds=True, whole=False, grants=True)
    crowd.speaks("a")
    granted(crowd)
    crowd.hushed("a")
    crowd.hushed("nobody")
    assert crowd.granter.under_way == 0
    assert len(crowd) == 1
    assert crowd.speaks("a"), "it may speak again"
    assert granted(crowd) == {"a": [None]}


def test_several_origins_begin_in_different_places() -> None:
    firsts = set()
    for seed in range(20):
        crowd = Audience(lambda: LENGTHS, random.Random(seed))
        for key in "ab":
            crowd.join(key, seeds=True, whole=True, grants=True)
            crowd.speaks(key)
        firsts.add(granted(crowd)["a"][0])
    assert len(firsts) > 3


def test_who_is_abroad_comes_after_those_who_are_named_something() -> None:
    crowd = audience()
    crowd.join("abroad", seeds=True, whole=True, grants=True, abroad=True)
    for key in "abcdef":
        crowd.join(key, seeds=True, whole=True, grants=True)
    for key in ("abroad", *"abcdef"):
        crowd.speaks(key)
    first = granted(crowd)
    assert "abroad" not in first
    assert all(runs != [None] for runs in first.values())
    for key in "abcdef":
        crowd.leave(key)
    crowd.join("other", seeds=True, whole=True, grants=True, abroad=True)
    crowd.speaks("other")
    assert granted(crowd) == {"abroad": [None], "other": [None]}, "which chunks cross is settled there"
