"""Who follows a replica hears once of each change in who shares it, and a round of dealing ends with its last follower."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.swarm.audience import MAX_LISTENERS, Audience

LENGTHS = [1 << 20] * 6
STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.booleans()), max_size=40)


def audience(start: int = 0) -> Audience:
    return Audience(lambda: LENGTHS, lambda _: start)


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
            told = crowd.join(key, seeds=seeds, whole=whole)
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
        crowd.join(str(number), seeds=False, whole=False)
    assert crowd.full
    crowd.leave("0")
    assert not crowd.full


def test_who_leaves_twice_or_never_came_changes_nothing() -> None:
    crowd = audience()
    crowd.join("a", seeds=True, whole=True)
    crowd.join("b", seeds=True, whole=True)
    assert crowd.leave("b") == ["a"]
    assert crowd.leave("b") == crowd.leave("nobody") == []
    assert (len(crowd), crowd.seeding) == (1, 1)


def test_only_followers_that_pass_on_are_offered_something() -> None:
    crowd = audience()
    crowd.join("keeps", seeds=False, whole=True)
    assert crowd.offers("keeps", 2, [], 0.0) == ([], False)
    assert crowd.offers("nobody", 2, [], 0.0) == ([], False)


def test_a_round_begins_where_it_is_told_and_ends_with_the_last_follower() -> None:
    starts = iter([3, 0])
    crowd = Audience(lambda: LENGTHS, lambda count: next(starts) % count)
    crowd.join("a", seeds=True, whole=True)
    first, over = crowd.offers("a", 16, [], 0.0)
    assert first[0].start == 3
    assert sorted(chunk for run in first for chunk in run) == list(range(len(LENGTHS)))
    assert not over
    assert crowd.offers("a", 16, first, 0.0) == ([], True)
    crowd.leave("a")
    crowd.join("b", seeds=True, whole=True)
    again, _ = crowd.offers("b", 16, [], 0.0)
    assert again[0].start == 0


def test_what_one_that_left_was_offered_goes_to_another() -> None:
    crowd = audience()
    for key in "ab":
        crowd.join(key, seeds=True, whole=True)
    runs, _ = crowd.offers("a", 16, [], 0.0)
    assert crowd.offers("b", 16, [], 0.0) == ([], False)
    crowd.leave("a")
    assert crowd.offers("b", 16, [], 0.0)[0] == runs
