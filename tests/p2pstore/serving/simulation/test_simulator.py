"""The simulated cluster: everything is served or refused, and policies differ as they should."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pstore.errors import UsageError
from p2pstore.serving.admission import Admission, Objectives
from p2pstore.serving.costs import Costs
from p2pstore.serving.events import Decode, Place, Reject, Removed, Stored
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from p2pstore.serving.simulation.outcome import Outcome, Scenario
from p2pstore.serving.simulation.simulator import MOST_SECONDS, Simulation, simulate
from p2pstore.serving.simulation.trace import Request


def conversations(count: int, every: float, seed: int = 0) -> list[Request]:
    """Requests of which half go on with one before."""
    drawn = random.Random(seed)
    made: list[Request] = []
    for number in range(count):
        before = drawn.choice(made[-50:]).blocks[:-1] if made and drawn.random() < 0.5 else ()
        blocks = before + tuple(range(100 * number, 100 * number + drawn.randint(1, 25)))
        made.append(Request(number * every, 512 * len(blocks) - drawn.randrange(512), drawn.randint(0, 600), blocks))
    return made


def run(
    requests: list[Request], placement: Placement, admission: Admission = Admission.NONE, **more: object
) -> Outcome:
    return simulate(Scenario(PolicySettings(placement, admission), **more), requests)


@given(
    st.sampled_from(Placement),
    st.sampled_from(Admission),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.3, 5.0]),
    st.integers(0, 5),
)
@settings(max_examples=40)
def test_everything_is_served_or_refused(
    placement: Placement, admission: Admission, prefill: int, decode: int, every: float, seed: int
) -> None:
    requests = conversations(60, every, seed)
    costs = Costs(cache=40 * 512)
    made = PolicySettings(placement, admission, Objectives(3.0, 0.05), costs)
    simulation = Simulation(Scenario(made, prefill, decode), requests)
    outcome = simulation.run()
    assert len(outcome.ttft) + sum(outcome.rejected.values()) == len(requests)
    assert outcome.rejected_computed <= sum(outcome.rejected.values())
    assert 0 <= outcome.good <= len(outcome.ttft)
    assert outcome.wasted_seconds + outcome.missed_seconds <= outcome.prefill_seconds + 1e-6
    for instance in simulation.policy.instances():
        assert not instance.queue
        assert not instance.running
        assert not instance.coming


def test_it_decides_with_what_it_is_told() -> None:
    """The policy's index has what the caches have, at every moment."""
    requests = conversations(150, 0.2)
    had: dict[str, set[object]] = {}

    def watch(event: object, _: list[object]) -> None:
        if isinstance(event, Stored):
            had.setdefault(event.instance, set()).update(event.blocks)
        elif isinstance(event, Removed):
            assert had[event.instance] >= set(event.blocks)
            had[event.instance].difference_update(event.blocks)

    made = PolicySettings(costs=Costs(cache=100 * 512))
    simulation = Simulation(Scenario(made, 3, 2), requests, watch)
    simulation.run()
    for name, worker in simulation._prefills.items():
        assert had[name] == {block for request in requests for block in request.blocks if worker.cache.prefix([block])}


def test_a_prediction_is_what_comes_true_where_nothing_is_evicted() -> None:
    """One prompt after the other, known costs and no fetches: the first token comes when it was said to."""
    requests = conversations(100, 0.4)
    predicted: dict[object, float] = {}

    def watch(_: object, decisions: list[object]) -> None:
        predicted.update({one.request: one.ttft for one in decisions if isinstance(one, Place)})

    outcome = Simulation(Scenario(PolicySettings(Placement.PREFIX_LOCAL), 2, 2), requests, watch).run()
    assert sorted(predicted.values()) == pytest.approx(sorted(outcome.ttft), rel=0.01)


def test_better_policies_are_better() -> None:
    requests = conversations(1500, 0.6)
    means = [
        sum(run(requests, one, prefill=4).ttft)
        for one in (Placement.RANDOM, Placement.LEAST_LOAD, Placement.PREFIX_LOCAL, Placement.KVCACHE_CENTRIC)
    ]
    assert means == sorted(means, reverse=True)
    assert means[3] < 0.95 * means[2]


def test_too_much_is_refused_so_that_the_rest_is_good() -> None:
    requests = conversations(1500, 0.05)
    everybody = run(requests, Placement.KVCACHE_CENTRIC, prefill=2)
    early = run(requests, Placement.KVCACHE_CENTRIC, Admission.EARLY, prefill=2)
    assert early.good > 2 * everybody.good
    assert sum(early.rejected.values()) > 100
    assert early.missed_seconds < 0.1 * everybody.missed_seconds


def test_early_rejection_spares_prefill_that_late_rejection_wastes() -> None:
    requests = conversations(3000, 0.05)
    found = {one: run(requests, Placement.KVCACHE_CENTRIC, one, prefill=16, decode=1) for one in Admission}
    late, early, predicted = (
        found[one].wasted_seconds for one in (Admission.LATE, Admission.EARLY, Admission.PREDICTED)
    )
    assert late > 0
    assert early < 0.8 * late
    assert predicted < 0.8 * late


def test_equal_runs_are_equal() -> None:
    requests = conversations(300, 0.2)
    for placement in (Placement.RANDOM, Placement.KVCACHE_CENTRIC):
        assert run(requests, placement).to_json() == run(requests, placement).to_json()


def test_twice_the_speed_is_half_the_time() -> None:
    requests = conversations(100, 1.0)
    assert run(requests, Placement.LEAST_LOAD, speed=2.0).span == pytest.approx(99 / 2)


def test_the_load_is_sampled_while_requests_come() -> None:
    outcome = run(conversations(500, 0.05), Placement.LEAST_LOAD, prefill=1)
    assert len(outcome.loads) > 100
    assert outcome.loads[-1].queue > outcome.loads[len(outcome.loads) // 2].queue > 0


def test_decisions_are_seen() -> None:
    seen: set[type] = set()
    made = PolicySettings(admission=Admission.EARLY, objectives=Objectives(2.0, 0.2))
    Simulation(Scenario(made, 1, 1), conversations(200, 0.1), lambda _, said: seen.update(map(type, said))).run()
    assert {Place, Decode, Reject} <= seen


@pytest.mark.parametrize("given_", [{"prefill": 0}, {"decode": 0}, {"speed": 0.0}, {"speed": float("inf")}])
def test_what_makes_no_sense_is_refused(given_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least one|speed"):
        Scenario(**given_)


@pytest.mark.parametrize(("last", "speed"), [(2 * MOST_SECONDS, 1.0), (1.0, 1e-9), (1.0, 1e-320)])
def test_what_would_take_for_ever_is_refused(last: float, speed: float) -> None:
    requests = [Request(0.0, 1, 1, ()), Request(last, 1, 1, ())]
    with pytest.raises(UsageError, match="days"):
        simulate(Scenario(PolicySettings(), speed=speed), requests)
