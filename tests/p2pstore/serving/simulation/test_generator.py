"""Generated traces have the statistics that were published, and equal seeds make equal ones."""

from __future__ import annotations

import pytest

from p2pstore.serving.simulation.generator import LEAST_PAUSE_SECONDS, MOST_TOKENS, WORKLOADS, generate
from p2pstore.serving.simulation.trace import Request, best_reuse


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_published_statistics_come_out(name: str) -> None:
    workload = WORKLOADS[name]
    made = generate(workload, seed=1)
    count = len(made)
    assert count == workload.requests
    assert sum(request.length for request in made) / count == pytest.approx(workload.input, rel=0.02)
    assert sum(request.output for request in made) / count == pytest.approx(workload.output, rel=0.02)
    assert best_reuse(made) == pytest.approx(workload.reuse, rel=0.08)
    assert made[-1].time == pytest.approx(workload.seconds, rel=0.02)


def test_the_conversation_trace_has_as_many_different_blocks_as_the_real_one() -> None:
    made = generate(WORKLOADS["conversation"])
    assert len({block for request in made for block in request.blocks}) == pytest.approx(182_790, rel=0.05)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_request_is_one_that_a_trace_can_have(name: str) -> None:
    before: dict[int, Request] = {}
    made = generate(WORKLOADS[name], requests=1500)
    assert [request.time for request in made] == sorted(request.time for request in made)
    for request in made:
        assert 1 <= request.length <= MOST_TOKENS
        assert request.output >= 1
        assert len(request.blocks) == len(set(request.blocks)) == -(-request.length // 512)
        shared = [block for block in request.blocks if block in before]
        assert list(request.blocks[: len(shared)]) == shared
        if len(shared) > 10:  # more than tenants have in common: it goes on with a session
            assert request.time - before[shared[-1]].time >= LEAST_PAUSE_SECONDS
        before.update(dict.fromkeys(request.blocks, request))


def test_equal_seeds_make_equal_traces_and_others_others() -> None:
    workload = WORKLOADS["synthetic"]
    assert generate(workload, 1, 200) == generate(workload, 1, 200) != generate(workload, 2, 200)


def test_fewer_requests_come_at_the_same_rate() -> None:
    assert generate(WORKLOADS["conversation"], requests=1200)[-1].time == pytest.approx(353, rel=0.05)
    assert len(generate(WORKLOADS["conversation"], requests=1)) == 1
