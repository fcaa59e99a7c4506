"""What a prefill costs is learnt from what was observed."""

from __future__ import annotations

import random

import pytest

from p2pstore.serving.costs import PrefillCost
from p2pstore.serving.fit import LEAST_SECONDS, SOLVE_EVERY, PrefillFit

TRUE = PrefillCost(0.05, 2e-4, 3e-9)
WRONG = PrefillCost(0.5, 1e-5, 3e-10)
TRIED = ((500, 0), (8000, 0), (60_000, 30_000), (100_000, 0))


def observed(fit: PrefillFit, count: int, cost: PrefillCost, noise: float = 0.0, seed: int = 0) -> None:
    drawn = random.Random(seed)
    for _ in range(count):
        length = int(drawn.lognormvariate(8.7, 1.2)) + 1
        reused = drawn.randrange(length)
        fit.observe(length, reused, cost.seconds(length, reused) * drawn.uniform(1 - noise, 1 + noise))


def test_it_begins_with_the_guess() -> None:
    assert PrefillFit(WRONG).cost == WRONG


@pytest.mark.parametrize(("noise", "within"), [(0.0, 0.03), (0.2, 0.15)])
def test_a_wrong_guess_is_corrected(noise: float, within: float) -> None:
    fit = PrefillFit(WRONG)
    observed(fit, 2000, TRUE, noise)
    for length, reused in TRIED:
        assert fit.cost.seconds(length, reused) == pytest.approx(TRUE.seconds(length, reused), rel=within)


def test_engines_that_get_slower_are_followed() -> None:
    fit = PrefillFit(TRUE)
    slower = PrefillCost(*(2 * value for value in TRUE))
    observed(fit, 1000, TRUE)
    observed(fit, 4000, slower)
    assert fit.cost.seconds(20_000, 0) == pytest.approx(slower.seconds(20_000, 0), rel=0.05)


def test_equal_prompts_and_no_time_make_no_nonsense() -> None:
    fit = PrefillFit(TRUE)
    for _ in range(40 * SOLVE_EVERY):
        fit.observe(1000, 0, 0.0)
    assert min(fit.cost) >= 0
    assert fit.cost.seconds(1000, 0) == pytest.approx(LEAST_SECONDS, rel=0.5)
