"""A pull that is stuck gives up after a while, and not before."""

from __future__ import annotations

import pytest

from p2pstore.pull.hope import NO_HOLDER_SECONDS, NO_SOURCE_SECONDS, QUIET_SECONDS, Hope


@pytest.mark.parametrize(("candidates", "patience"), [(0, NO_HOLDER_SECONDS), (3, NO_SOURCE_SECONDS)])
def test_hope_ends_after_being_stuck_for_long(candidates: int, patience: float) -> None:
    hope = Hope()
    assert not hope.over(50.0, stuck=True, waiting=False, candidates=candidates, fed=False)
    assert not hope.over(50.0 + patience, stuck=True, waiting=False, candidates=candidates, fed=False)
    assert hope.over(50.1 + patience, stuck=True, waiting=False, candidates=candidates, fed=False)


@pytest.mark.parametrize(("stuck", "waiting"), [(False, False), (True, True), (False, True)])
def test_what_moves_or_may_have_a_place_later_hopes_anew(stuck: bool, waiting: bool) -> None:
    hope = Hope()
    assert not hope.over(0.0, stuck=True, waiting=False, candidates=0, fed=False)
    assert not hope.over(100.0, stuck=stuck, waiting=waiting, candidates=0, fed=False)
    assert not hope.over(101.0, stuck=True, waiting=False, candidates=0, fed=False)
    assert not hope.over(101.0 + NO_HOLDER_SECONDS, stuck=True, waiting=False, candidates=0, fed=False)
    assert hope.over(101.1 + NO_HOLDER_SECONDS, stuck=True, waiting=False, candidates=0, fed=False)


def test_a_holder_that_comes_up_late_is_waited_for() -> None:
    hope = Hope()
    assert not hope.over(0.0, stuck=True, waiting=False, candidates=0, fed=False)
    assert not hope.over(NO_HOLDER_SECONDS + 1, stuck=True, waiting=False, candidates=1, fed=False)
    assert hope.over(NO_SOURCE_SECONDS + 1, stuck=True, waiting=False, candidates=1, fed=False)


def test_a_source_that_died_may_start_again_though_its_lease_ran_out() -> None:
    hope = Hope()
    assert not hope.over(0.0, stuck=True, waiting=False, candidates=1, fed=True)
    assert not hope.over(NO_SOURCE_SECONDS, stuck=True, waiting=False, candidates=0, fed=True)
    assert hope.over(NO_SOURCE_SECONDS + 0.1, stuck=True, waiting=False, candidates=0, fed=True)


def test_the_user_hears_of_it_when_it_takes_longer() -> None:
    hope = Hope()
    assert not hope.tells(100.0)
    hope.over(100.0, stuck=True, waiting=False, candidates=1, fed=True)
    assert not hope.tells(100.0 + QUIET_SECONDS)
    assert hope.tells(100.1 + QUIET_SECONDS)
    hope.over(103.0, stuck=False, waiting=False, candidates=1, fed=True)
    assert not hope.tells(200.0)
