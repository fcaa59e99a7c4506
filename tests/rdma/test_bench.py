"""``bench transfer --transport rdma`` on real devices: that it measures, not how fast."""

from __future__ import annotations

from engine.bench import Case, Engine, Operation, Plan, run
from tests.rdma.conftest import OURS, THEIRS


def test_our_engine_against_the_yardsticks() -> None:
    plan = Plan(
        cases=[Case(Operation.READ, 1 << 20, 16, 1)],
        engines=(Engine.OURS, Engine.OURS_TCP),
        duration=1.0,
        warm_up=0.2,
        rounds=1,
        verify=True,
        transport="rdma",
        device=OURS,
        target_device=THEIRS,
    )
    ours, tcp = run(plan)
    assert (ours.engine, tcp.engine) == (Engine.OURS, Engine.OURS_TCP)
    assert ours.bytes > 0
    assert tcp.bytes > 0
    assert ours.ratio is not None
    assert ours.to_json()["cpu_seconds_per_gb"] > 0
    print(f"{ours.ratio:.2f} of {ours.yardstick}")
