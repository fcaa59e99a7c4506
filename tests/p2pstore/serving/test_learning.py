"""What is learnt while requests are served, and what is doubted while none are."""

from __future__ import annotations

import pytest

from p2pstore.serving.costs import Costs
from p2pstore.serving.events import Kind, Reason
from p2pstore.serving.instances import PACE_SECONDS, PACE_TOKENS, Instance, Tracked
from p2pstore.serving.learning import HALVE_SECONDS, LearntCosts


def streams(learnt: LearntCosts, instance: Instance, count: int, tokens: int, step: float) -> float:
    """So many requests of one instance get their tokens at a time: when they have."""
    requests = [Tracked(number, 1000, (), 0.0) for number in range(count)]
    now = 0.0
    for _ in range(tokens):
        now += step
        for tracked in requests:
            tracked.output += 1
            instance.tokens += 1
            learnt.decoded(tracked, instance, now, held=False)
    return now


def test_a_step_is_measured_once_for_all_of_an_instance() -> None:
    learnt, instance = LearntCosts(Costs()), Instance("d", Kind.DECODE, 0)
    seen: list[tuple[float, float]] = []
    learnt.decode.observe = lambda tokens, seconds: seen.append((tokens, seconds))  # type: ignore[method-assign]
    took = streams(learnt, instance, 50, 300, 0.01)
    assert took / PACE_SECONDS - 1 <= len(seen) <= took / PACE_SECONDS + 1
    assert all(seconds == pytest.approx(0.01) for _, seconds in seen)
    assert [tokens for tokens, _ in seen] == sorted(tokens for tokens, _ in seen), "the batch has ever more context"


def test_tokens_that_come_together_are_a_mean() -> None:
    learnt, instance = LearntCosts(Costs()), Instance("d", Kind.DECODE, 0)
    tracked, now = Tracked(0, 1000, (), 0.0), 0.0
    seen: list[float] = []
    learnt.decode.observe = lambda _, seconds: seen.append(seconds)  # type: ignore[method-assign]
    for _ in range(40):
        now += 4 * 0.05
        for _ in range(4):
            tracked.output += 1
            learnt.decoded(tracked, instance, now, held=False)
    assert seen
    assert all(seconds == pytest.approx(0.05, rel=4 / PACE_TOKENS) for seconds in seen)


@pytest.mark.parametrize("reason", [Reason.TTFT, Reason.TBT])
def test_what_only_refusals_speak_for_is_halved(reason: Reason) -> None:
    learnt = LearntCosts(Costs())
    fit = {Reason.TTFT: learnt.prefill, Reason.TBT: learnt.decode}[reason]
    before = [learnt.prefill.cost.fixed, learnt.decode.cost.fixed]
    learnt.tick(10 * HALVE_SECONDS)
    assert [learnt.prefill.cost.fixed, learnt.decode.cost.fixed] == before, "nothing was refused"
    first = fit.cost.fixed
    for now in range(int(2.5 * HALVE_SECONDS)):
        learnt.refused(reason, float(now))
        learnt.tick(float(now))
    assert fit.cost.fixed == first / 4
    assert sorted([learnt.prefill.cost.fixed, learnt.decode.cost.fixed]) != sorted(before)
    assert len({*before, learnt.prefill.cost.fixed, learnt.decode.cost.fixed}) == 3, "the other one is not doubted"


@pytest.mark.parametrize("reason", [Reason.TTFT, Reason.TBT])
def test_one_refusal_is_not_doubted_for_as_long_as_nobody_asks(reason: Reason) -> None:
    learnt = LearntCosts(Costs())
    fit = {Reason.TTFT: learnt.prefill, Reason.TBT: learnt.decode}[reason]
    first = fit.cost.fixed
    learnt.refused(reason, 0.0)
    for number in range(1, 2000):
        learnt.tick(number * HALVE_SECONDS)
    assert fit.cost.fixed == first / 2


def test_while_some_come_through_nothing_is_doubted() -> None:
    learnt, instance = LearntCosts(Costs()), Instance("d", Kind.DECODE, 0)
    before = learnt.prefill.cost, learnt.decode.cost
    for now in range(int(5 * HALVE_SECONDS)):
        for reason in Reason:
            learnt.refused(reason, float(now))
        learnt.computed(Tracked(now, 1000, (), 0.0), None)
        learnt.decoded(Tracked(now, 1000, (), 0.0), instance, float(now), held=False)
        learnt.tick(float(now))
    assert (learnt.prefill.cost, learnt.decode.cost) == before
