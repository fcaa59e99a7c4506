"""Each follower is told of each run once, in order, whoever comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.swarm.untold import MAX_LOG, Untold

KEYS = "abc"
STEPS = st.lists(st.tuples(st.sampled_from(["join", "leave", "add", "take"]), st.sampled_from(KEYS)), max_size=60)


@given(STEPS)
def test_each_is_told_of_what_comes_while_it_follows(steps: list[tuple[str, str]]) -> None:
    untold = Untold()
    expected: dict[str, list[range]] = {}
    for number, (step, key) in enumerate(steps):
        if step == "join" and key not in expected:
            untold.join(key)
            expected[key] = []
        elif step == "leave":
            untold.leave(key)
            expected.pop(key, None)
        elif step == "add":
            untold.add(range(number, number + 1))
            for runs in expected.values():
                runs.append(range(number, number + 1))
        elif step == "take" and key in expected:
            assert untold.take(key) == tuple(expected[key])
            expected[key].clear()
    for key, runs in expected.items():
        assert untold.take(key) == tuple(runs)


def test_what_all_were_told_of_is_forgotten() -> None:
    untold = Untold()
    untold.join("quick")
    for number in range(3 * MAX_LOG):
        untold.add(range(number, number + 1))
        if number == MAX_LOG:
            untold.join("later")
        elif number > MAX_LOG:
            assert untold.take("later") == (range(number, number + 1),)
        assert len(untold.take("quick")) == 1
    assert len(untold._log) <= MAX_LOG


def test_one_that_is_told_of_nothing_loses_nothing() -> None:
    untold = Untold()
    untold.join("slow")
    for number in range(3 * MAX_LOG):
        untold.add(range(number, number + 1))
    assert len(untold.take("slow")) == 3 * MAX_LOG
    assert untold.take("slow") == ()


def test_nobody_follows() -> None:
    untold = Untold()
    for number in range(2 * MAX_LOG):
        untold.add(range(number, number + 1))
    assert len(untold._log) <= MAX_LOG
