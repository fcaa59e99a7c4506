"""What a prefill costs is learnt from what was observed."""

from __future__ import annotations

import random

import pytest

from p2pstore.serving.costs import Costs, DecodeCost, PrefillCost
from p2pstore.serving.fit import LEAST_SECONDS, SOLVE_EVERY, DecodeFit, PrefillFit

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


GUESS = Costs().decode
SLOW = DecodeCost(0.04, 2e-6, GUESS.room)


def stepped(fit: DecodeFit, count: int, cost: DecodeCost, most: float, noise: float = 0.2) -> None:
    drawn = random.Random(1)
    for _ in range(count):
        tokens = drawn.uniform(0.0, most)
        fit.observe(tokens, cost.seconds(tokens) * drawn.uniform(1 - noise, 1 + noise))


def test_a_steps_cost_begins_with_the_guess() -> None:
    assert DecodeFit(GUESS).cost == GUESS


@pytest.mark.parametrize("true", [SLOW, GUESS, DecodeCost(0.002, 1e-8, GUESS.room)])
def test_a_wrong_guess_of_a_step_is_corrected(true: DecodeCost) -> None:
    fit = DecodeFit(GUESS)
    stepped(fit, 2000, true, 100_000)
    for tokens in (0, 30_000, 100_000):
        assert fit.cost.seconds(tokens) == pytest.approx(true.seconds(tokens), rel=0.1)
    assert fit.cost.room == GUESS.room


def test_a_few_measures_at_one_load_are_enough_for_that_load() -> None:
    fit = DecodeFit(GUESS)
    for _ in range(20):
        fit.observe(500, 0.2)
    assert fit.cost.seconds(500) == pytest.approx(0.2, rel=0.1)
    assert fit.cost.each == pytest.approx(GUESS.each, rel=0.5), "of other loads it knows no more than before"


def test_engines_whose_steps_get_slower_are_followed() -> None:
    fit = DecodeFit(GUESS)
    stepped(fit, 1000, GUESS, 100_000)
    stepped(fit, 4000, SLOW, 100_000)
    assert fit.cost.seconds(50_000) == pytest.approx(SLOW.seconds(50_000), rel=0.05)


def test_steps_of_no_time_or_that_get_quicker_make_no_nonsense() -> None:
    fit = DecodeFit(GUESS)
    for tokens in range(0, 5000, 5):
        fit.observe(tokens, 0.0)
        assert min(fit.cost) >= 0
    for tokens in range(0, 100_000, 20):
        fit.observe(tokens, 0.1 * (1 - tokens / 100_000))
        assert min(fit.cost) >= 0


def test_a_belief_that_is_halved_gives_way_to_what_is_seen_next() -> None:
    prefill, decode = PrefillFit(TRUE), DecodeFit(GUESS)
    observed(prefill, 1000, TRUE)
    stepped(decode, 1000, SLOW, 100_000)
    before = prefill.cost.seconds(20_000, 0), decode.cost.seconds(50_000)
    prefill.halve()
    decode.halve()
    assert (prefill.cost.seconds(20_000, 0), decode.cost.seconds(50_000)) == tuple(value / 2 for value in before)
    observed(prefill, 100, TRUE)
    stepped(decode, 100, SLOW, 100_000, noise=0.0)
    assert prefill.cost.seconds(20_000, 0) == pytest.approx(TRUE.seconds(20_000, 0), rel=0.1)
    assert decode.cost.seconds(50_000) == pytest.approx(SLOW.seconds(50_000), rel=0.1)
