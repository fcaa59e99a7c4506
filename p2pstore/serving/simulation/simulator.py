"""A serving cluster in simulated time: the policy that a proxy has, on a virtual clock, and a trace of requests.

What is simulated is what decides: who computes what, who has which blocks, who waits for whom. A prefill instance
computes one prompt at a time and keeps the blocks of as many as it has room for. A prefix that is fetched comes over
its holder's link, one fetch after the other, while the prompt waits in the queue. KV cache goes to the decode instance
layer by layer while it is computed, so that only the last layer is waited for. Decode takes requests into its batch
while their KV cache fits, and each step takes as long as the batch's context says. The engine's own costs are those
that the policy begins with, and instances do not die; the policy is told of both as it would be by real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from p2pstore.bench.virtual_clock import VirtualClock
from p2pstore.errors import UsageError
from p2pstore.serving.events import (
    Arrive,
    Block,
    Decision,
    Decode,
    DecodeStart,
    Event,
    Finish,
    InstanceUp,
    Kind,
    Place,
    PrefillDone,
    Reject,
    Removed,
    Replicate,
    Stored,
    Tick,
    Token,
)
from p2pstore.serving.policy import Policy
from p2pstore.serving.simulation.outcome import Load, Outcome, Scenario
from p2pstore.serving.simulation.trace import Request
from p2pstore.serving.simulation.workers import DecodeWorker, Job, PrefillWorker

SAMPLES = 200
"""Samples of the load while requests arrive."""

TICK_SECONDS = 10.0
"""How often the policy is told the time."""

MOST_SECONDS = 30 * 86_400.0
"""The longest time over which requests may arrive: what takes longer would be ticks, and hardly anything else."""


class Simulation:
    """One run of a trace."""

    def __init__(
        self,
        scenario: Scenario,
        requests: Sequence[Request],
        watch: Callable[[Event, list[Decision]], None] | None = None,
    ) -> None:
        """``watch`` hears of every event and of what was decided.

        Raises ``UsageError`` for requests that arrive over more than ``MOST_SECONDS``.
        """
        if requests and (span := (requests[-1].time - requests[0].time) / scenario.speed) > MOST_SECONDS:
            days, most = span / 86_400, MOST_SECONDS / 86_400
            raise UsageError(
                detail=f"at speed {scenario.speed:g} requests arrive over {days:.4g} days, and {most:g} are the most; "
                "timestamps are in milliseconds"
            )
        settings = scenario.settings
        costs = settings.costs
        self.outcome = Outcome(scenario, requests=len(requests))
        self.policy = Policy(settings)
        self._watch = watch
        self._clock = VirtualClock()
        self._requests = requests
        self._token = costs.transfer
        self._last_layer = costs.transfer / costs.model.layers
        room = costs.cache // settings.block_tokens
        self._prefills = {
            name: PrefillWorker(name, self._clock, costs.prefill, settings.block_tokens, room, self._computed)
            for name in (f"prefill{number}" for number in range(scenario.prefill))
        }
        self._decodes = {
            name: DecodeWorker(name, self._clock, costs.decode, self._joined, self._finished)
            for name in (f"decode{number}" for number in range(scenario.decode))
        }

    def run(self) -> Outcome:
        """Until everything is served or refused."""
        for name in self._prefills:
            self._tell(InstanceUp(name, Kind.PREFILL))
        for name in self._decodes:
            self._tell(InstanceUp(name, Kind.DECODE))
        outcome, requests = self.outcome, self._requests
        if requests:
            outcome.span = (requests[-1].time - requests[0].time) / outcome.scenario.speed
            self._clock.at(0.0, self._arrive, 0)
            self._clock.at(0.0, self._sample, outcome.span / SAMPLES)
            self._clock.at(TICK_SECONDS, self._tick)
        self._clock.run(float("inf"))
        outcome.prefill_seconds = sum(one.busy for one in self._prefills.values())
        outcome.events = self._clock.events
        return outcome

    def _tell(self, event: Event) -> list[Decision]:
        decisions = self.policy.handle(event, self._clock.now)
        if self._watch is not None:
            self._watch(event, decisions)
        return decisions

    # Time

    def _arrive(self, number: int) -> None:
        request = self._requests[number]
        if number + 1 < len(self._requests):
            due = (self._requests[number + 1].time - self._requests[0].time) / self.outcome.scenario.speed
            self._clock.at(due, self._arrive, number + 1)
        job = Job(number, request, self._clock.now)
        self.outcome.blocks += len(request.blocks)
        for decision in self._tell(Arrive(number, request.length, request.blocks)):
            if isinstance(decision, Place):
                self._place(job, decision)
            elif isinstance(decision, Reject):
                self.outcome.rejected[decision.reason] += 1

    def _sample(self, interval: float) -> None:
        now, prefills, decodes = self._clock.now, self._prefills.values(), self._decodes.values()
        queue = sum(one.wait(now) for one in self.policy.instances() if one.kind is Kind.PREFILL) / len(prefills)
        step = sum(one.step for one in decodes) / len(decodes)
        self.outcome.loads.append(Load(now, queue, step, sum(self.outcome.rejected.values())))
        if interval and now + interval <= self.outcome.span:
            self._clock.at(now + interval, self._sample, interval)

    def _tick(self) -> None:
        for decision in self._tell(Tick()):
            if isinstance(decision, Replicate):
                self.outcome.replicas += 1
                target = self._prefills[decision.target]
                self._fetch(decision.source, target, decision.blocks, lambda: None)
        if self._clock.now + TICK_SECONDS <= self.outcome.span:
            self._clock.at(self._clock.now + TICK_SECONDS, self._tick)

    # Prefill

    def _place(self, job: Job, decision: Place) -> None:
        worker = self._prefills[decision.prefill]
        if decision.transfer_from is not None:
            job.ready = False
            wanted = job.request.blocks[: -(-decision.reused // self.outcome.scenario.settings.block_tokens)]

            def ready() -> None:
                job.ready = True
                worker.look()

            self._fetch(decision.transfer_from, worker, wanted, ready)
        worker.give(job)

    def _fetch(self, source: str, target: PrefillWorker, blocks: Sequence[Block], then: Callable[[], None]) -> None:
        had = target.cache.prefix(blocks)
        sender = self._prefills[source]
        missing = len(blocks) - had
        self.outcome.fetched += missing
        seconds = missing * self.outcome.scenario.settings.block_tokens * self._token
        sender.sending = max(sender.sending, self._clock.now) + seconds
        self._clock.at(sender.sending, self._fetched, target, blocks, then)

    def _fetched(self, target: PrefillWorker, blocks: Sequence[Block], then: Callable[[], None]) -> None:
        self._store(target, blocks)
        then()

    def _store(self, worker: PrefillWorker, blocks: Sequence[Block]) -> None:
        new, gone = worker.cache.use(blocks)
        if new:
            self._tell(Stored(worker.name, new))
        if gone:
            self._tell(Removed(worker.name, gone))

    def _computed(self, worker: PrefillWorker, job: Job) -> None:
        outcome = self.outcome
        job.first = self._clock.now
        outcome.reused += job.reused
        self._store(worker, job.request.blocks)
        for decision in self._tell(PrefillDone(job.number)):
            if isinstance(decision, Decode):
                after = job.request.length * self._last_layer
                self._clock.at(job.first + after, self._decodes[decision.decode].offer, job)
            elif isinstance(decision, Reject):
                outcome.rejected[decision.reason] += 1
                outcome.rejected_computed += 1
                outcome.wasted_seconds += job.prefill_seconds

    # Decode

    def _joined(self, job: Job) -> None:
        self._tell(DecodeStart(job.number))
        self._tell(Token(job.number))

    def _finished(self, job: Job) -> None:
        outcome = self.outcome
        ttft = (job.first or 0.0) - job.arrived
        outcome.ttft.append(ttft)
        outcome.tbt.append(job.tbt)
        outcome.seconds = self._clock.now
        objectives = outcome.scenario.settings.objectives
        if ttft <= objectives.ttft and job.tbt <= objectives.tbt:
            outcome.good += 1
        else:
            outcome.missed_seconds += job.prefill_seconds
        self._tell(Finish(job.number, job.request.output))


def simulate(scenario: Scenario, requests: Sequence[Request]) -> Outcome:
    """Run a trace through a scenario. Raises ``UsageError`` as ``Simulation`` does."""
    return Simulation(scenario, requests).run()
