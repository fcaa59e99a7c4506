"""What is measured comes out of the model again: its costs explain the processor seconds that they were made of."""

from __future__ import annotations

import pytest

from p2pstore.bench import calibrate
from p2pstore.bench.broadcast_outcome import Broadcast, BroadcastPlan, Received
from p2pstore.bench.simulated_processors import Costs
from p2pstore.bench.simulator import simulate
from p2pstore.errors import PartialResult, UsageError


def result(plan: BroadcastPlan, *, equal: bool = True) -> Broadcast:
    receivers = [Received(f"node{number}", equal=equal) for number in range(1, plan.receivers + 1)]
    return Broadcast(plan, receivers=receivers, processor_seconds={1: 0.5, calibrate.SEVERAL: 4.2}[plan.receivers])


def test_the_costs_explain_what_was_measured() -> None:
    said: list[str] = []
    found = calibrate.calibrate(said.append, result)
    assert len(said) == 2
    assert found.byte_seconds == pytest.approx(0.5 / calibrate.SIZE)
    outcome = simulate(calibrate.scenario(calibrate.SEVERAL, found))
    assert outcome.processor_seconds == pytest.approx(4.2, rel=0.1)
    assert outcome.wakes > 0


def test_messages_cost_nothing_where_no_time_is_left_for_them() -> None:
    assert calibrate.costs(1.0, 3.0) == Costs(1.0 / calibrate.SIZE, 0.0, 0.0)


def test_who_may_not_measure_is_told_before_anything_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate.os, "geteuid", lambda: 1000)
    said: list[str] = []
    with pytest.raises(UsageError, match=r"--calibrate .* needs root; --processors N alone"):
        calibrate.calibrate(said.append)
    assert said == []


def test_a_broadcast_that_failed_is_no_measurement() -> None:
    with pytest.raises(PartialResult):
        calibrate.calibrate(lambda _: None, lambda plan: result(plan, equal=False))
