"""What bytes and messages cost this machine's processors, measured by two real broadcasts.

With one receiver nothing is said while the object is on its way, so what the agents take is for its bytes. With
several, what they take beside that is for what they say: as many messages and wake-ups as a simulation of the same
broadcast counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from p2pstore.bench.broadcast import broadcast
from p2pstore.bench.broadcast_outcome import Broadcast, BroadcastPlan
from p2pstore.bench.scenario import Scenario
from p2pstore.bench.simulated_processors import WAKE_TO_MESSAGE, Costs
from p2pstore.bench.simulator import simulate
from p2pstore.errors import PartialResult, UsageError

SIZE = 256 << 20
RATE = 25e6
"""In bytes a second: slow enough for two processors not to be what the broadcast waits for."""

SEVERAL = 6

LATENCY = 0.0001
"""Seconds from one namespace of a machine to another."""


def calibrate(say: Callable[[str], None], run: Callable[[BroadcastPlan], Broadcast] | None = None) -> Costs:
    """Measure it: a minute, as root. ``say`` is told what happens; ``run`` is for tests, instead of ``broadcast``.

    Raises as ``broadcast``, and ``PartialResult`` when somebody did not get everything.
    """
    if run is None and os.geteuid() != 0:
        raise UsageError(
            detail="--calibrate measures broadcasts in network namespaces, which needs root; "
            "--processors N alone simulates with costs that were measured elsewhere"
        )
    spent = []
    for receivers in (1, SEVERAL):
        say(f"measuring a broadcast to {receivers}")
        plan = BroadcastPlan(receivers=receivers, size=SIZE, rate=RATE)
        done = run(plan) if run is not None else broadcast(plan, lambda _: None)
        if not done.ok:
            raise PartialResult(
                detail="a broadcast that was to be measured did not bring everything to everybody",
                todo="run 'mooncake bench broadcast' to see who got what",
            )
        spent.append(done.processor_seconds)
    return costs(spent[0], spent[1])


def costs(alone: float, several: float) -> Costs:
    """What follows from the processor seconds of a broadcast to one and of one to ``SEVERAL``."""
    found = Costs(alone / SIZE, 0.0)
    left = max(0.0, several - alone * SEVERAL)
    for _ in range(2):  # what messages cost bears on how many are said
        outcome = simulate(scenario(SEVERAL, found))
        each = left / (outcome.messages + WAKE_TO_MESSAGE * outcome.wakes)
        found = Costs(found.byte_seconds, each, WAKE_TO_MESSAGE * each)
    return found


def scenario(receivers: int, known: Costs) -> Scenario:
    """What a simulation is told of such a broadcast on this machine."""
    here = processors_here()
    return Scenario(receivers=receivers, size=SIZE, rate=RATE, latency=LATENCY, processors=here, costs=known)


def processors_here() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))
