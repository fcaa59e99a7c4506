"""A swarm in simulated time: the store's own planner and uploader on a virtual clock, events in the order of time.

What is simulated is what decides: each receiver has the ``Planner`` that a pull has, each node the ``UploadQueue`` that
its data server has and the ``Audience`` that its replica has, and what one has is told to those who follow it, gathered
for as long and as late as the control plane does. Bytes are flows on links (``p2pstore.bench.links``). Disks take no
time, processors take what the scenario says (``p2pstore.bench.simulated_processors``), and no byte is wrong.

A death takes a node off the network; what was on its way to or from it is lost. Its peers learn of it after the
scenario's ``notice``, and take another in its place.
"""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Iterator, Sequence

from p2pstore.bench.scenario import Outcome, Sample, Scenario
from p2pstore.bench.simulated_messages import Messages
from p2pstore.bench.simulated_news import News
from p2pstore.bench.simulated_node import SimulatedNode, SimulatedRequest
from p2pstore.bench.simulated_processors import PAYLOAD
from p2pstore.bench.simulated_sends import Sends
from p2pstore.bench.virtual_clock import VirtualClock
from p2pstore.holding.replica import GATHER_SECONDS
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.audience import Audience
from p2pstore.swarm.events import (
    Action,
    Cancel,
    Claims,
    Declined,
    Done,
    Ending,
    Event,
    Failed,
    Fetch,
    Fetched,
    FetchFault,
    Granted,
    Opened,
    PeerAdded,
    PeerClaims,
    PeerGone,
    PeerHas,
    Tick,
    Word,
)
from p2pstore.swarm.following import displaces
from p2pstore.swarm.gateway import ABROAD, SAME_ZONE, Gateways
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.planner import Planner
from p2pstore.swarm.words import say

TICK_SECONDS = 0.2
"""How often a planner is told the time, or ``TICKS`` times in S/B, whichever is rarer."""

TICKS = 500

SAMPLES = 100
"""Samples of everybody's progress in S/B, and ``MIN_SAMPLE_SECONDS`` apart at least."""

MIN_SAMPLE_SECONDS = 0.01

HOPELESS = 50
HOPELESS_SECONDS = 60.0
"""After so many times the time that the slowest link takes for the object, and so many seconds more, a simulation ends,
whoever is not through."""

GARBAGE = 100_000
"""New objects after which the garbage collector looks, while a simulation runs; it takes a tenth of the time else."""

SEED = "seed"


class Simulation:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.outcome = Outcome(scenario)
        self._random = random.Random(scenario.seed)  # noqa: S311 - repeatable is what it must be
        self._clock = VirtualClock([scenario.latency, scenario.latency + scenario.zone_latency])
        self._lengths = [scenario.chunk_size] * scenario.chunks
        self._lengths[-1] = scenario.size - scenario.chunk_size * (scenario.chunks - 1)
        self._messages = Messages(self._clock, scenario, self.outcome)
        self._news = News(self._clock, self._messages, self._deliver, self._hear_grant)
        self._sends = Sends(self._clock, scenario, self._ending, self._sent)
        self._seed = self._made(SEED, 0, scenario.rate, Bitmap(scenario.chunks, full=True))
        self._seed.here = True
        self._present: list[SimulatedNode] = []
        self._unfinished = 0

    def run(self) -> Outcome:
        """Run it to the end: everybody alive has everything, or nothing more happens."""
        self._populate()
        scenario = self.scenario
        slowest = min(rate for rate in (scenario.rate, scenario.slow_rate, scenario.zone_rate) if rate)
        end = scenario.arrivals + scenario.size / slowest * HOPELESS + HOPELESS_SECONDS
        self._clock.run(end)
        self.outcome.unfinished = self._unfinished
        self.outcome.events = self._clock.events
        self.outcome.seed_bytes = self._seed.sent
        self.outcome.crossed_in, self.outcome.crossed_out = self._sends.crossed_in, self._sends.crossed_out
        if self._messages.processors is not None:
            self.outcome.processor_seconds = self._messages.processors.spent
        return self.outcome

    def _populate(self) -> None:
        scenario, rng = self.scenario, self._random
        nodes = []
        for number in range(scenario.receivers):
            rate = scenario.slow_rate if number < scenario.slow else scenario.rate
            nodes.append(self._made(f"node{number}", number % scenario.zones, rate, Bitmap(scenario.chunks)))
        self._unfinished = len(nodes)
        order = rng.sample(nodes, len(nodes))
        if not scenario.arrivals:
            self._present = order  # they know of one another from the beginning
        for place, node in enumerate(order):
            self._clock.at(scenario.arrivals * place / len(order), self._arrive, node)
        once = scenario.size / scenario.rate
        for node in rng.sample(nodes, scenario.deaths):
            self._clock.at(rng.uniform(0, once), self._die, node)
        self._clock.at(0.0, self._sample, max(once / SAMPLES, MIN_SAMPLE_SECONDS))

    def _made(self, name: str, zone: int, rate: float, had: Bitmap) -> SimulatedNode:
        audience = Audience(lambda: self._lengths, self._random)
        rate *= PAYLOAD if self.scenario.processors else 1.0
        return SimulatedNode(name, zone, rate, self.scenario.slots, had, audience)

    def _sample(self, interval: float) -> None:
        counts = [node.had.count for node in self._present if node.alive]
        if counts:
            chunks = self.scenario.chunks
            mean = sum(counts) / len(counts) / chunks
            self.outcome.samples.append(Sample(self._clock.now, min(counts) / chunks, mean, max(counts) / chunks))
        self._clock.at(self._clock.now + interval, self._sample, interval)

    # Who is there

    def _arrive(self, node: SimulatedNode) -> None:
        if not node.alive:
            return
        node.here = True
        node.came = self._clock.now
        gateways = Gateways(self._random) if self.scenario.zones > 1 else None
        node.planner = Planner(self._lengths, node.had, seed=self._random.randrange(1 << 30), gateways=gateways)
        if node not in self._present[-1:] and self.scenario.arrivals:
            for other in self._present:  # who lacks sources hears of the newcomer
                if other.alive and other.planner is not None and self._has_place(other, node):
                    self._follow(other, node)
            self._present.append(node)
        if self._seed.alive:
            self._follow(node, self._seed)
        self._find_sources(node)
        once = self.scenario.size / self.scenario.rate
        tick = max(TICK_SECONDS, once / TICKS)
        self._clock.at(self._clock.now + tick * self._random.random(), self._tick, node, tick)

    def _has_place(self, node: SimulatedNode, newcomer: SimulatedNode) -> bool:
        """Whether a node can follow one more, or gives up another for it."""
        if len(node.sources) <= self.scenario.sources:
            return True
        if not displaces(len(self._present), self.scenario.sources, self._random):
            return False
        others = node.may_give_up(newcomer)
        if not others:
            return False
        gone = self._random.choice(others)
        self._clock.at(self._clock.now + self._messages.delay(node, gone), self._leave, gone, node)
        self._lose(node, gone)
        return True

    def _lose(self, node: SimulatedNode, source: SimulatedNode) -> None:
        """A node does not follow a source any more."""
        del node.sources[source.name]
        for request in [r for r in node.wanted.values() if r.uploader is source]:
            self._cancel(request)
        self._tell(node, PeerGone(source.name))

    def _find_sources(self, node: SimulatedNode) -> None:
        """Follow random others, one from the same zone for each from elsewhere, until there are enough."""
        missing = self.scenario.sources - len(node.sources) + (SEED in node.sources)
        if missing <= 0:
            return
        strangers = [n for n in self._present if n.alive and n is not node and n.name not in node.met]
        if self.scenario.zones > 1:
            self._random.shuffle(strangers)
            near = [n for n in strangers if n.zone == node.zone][: -(-missing // 2)]
            far = [n for n in strangers if n.zone != node.zone][: missing - len(near)]
            chosen = near + far
        else:
            chosen = self._random.sample(strangers, min(missing, len(strangers)))
        for other in chosen:
            self._follow(node, other)

    def _follow(self, node: SimulatedNode, source: SimulatedNode) -> None:
        node.met.add(source.name)
        node.sources[source.name] = source
        self._clock.at(self._clock.now + 2 * self._messages.delay(node, source), self._hear, node, source)

    def _hear(self, node: SimulatedNode, source: SimulatedNode) -> None:
        """A node opens a source's stream: it learns what that has, and whether others get from it."""
        if not source.alive or node.planner is None or node.sources.get(source.name) is not source:
            return
        if not source.here:  # it comes a little later
            self._clock.at(
                self._clock.now + self._messages.delay(node, source) + GATHER_SECONDS, self._hear, node, source
            )
            return
        if source.audience.full:
            del node.sources[source.name]
            self._find_sources(node)
            return
        source.listeners[node.name] = node
        source.untold.join(node.name)
        others = source.audience.join(
            node.name, seeds=True, whole=source.had.full, grants=True, abroad=node.zone != source.zone
        )
        source.audience.speaks(node.name, empty=not source.had.count)
        distance = SAME_ZONE if node.zone == source.zone else ABROAD
        shared = source.audience.shared(node.name)
        self._tell(node, PeerAdded(source.name, source.had, distance, shared, grants=True))
        for claim in source.claims.values():
            self._tell(node, PeerClaims(source.name, claim))
        self._news.share(source, others)

    def _hear_grant(self, node: SimulatedNode, name: str, grant: Grant, news: Sequence[range]) -> None:
        if name in node.sources:
            if news:
                self._tell(node, PeerHas(name, [chunk for run in news for chunk in run]))
            granted = Grant(name, grant.number, grant.run, grant.window, grant.lead)
            self._tell(node, Granted(granted, self._clock.now))

    def _hear_word(self, source: SimulatedNode, key: str, word: Word) -> None:
        """What a node says to a source reaches it."""
        if source.alive and key in source.listeners:
            say(source.audience.granter, key, word, self._clock.now)
            self._news.grant(source)

    def _die(self, node: SimulatedNode) -> None:
        """Take a node off the network."""
        if not node.alive:
            return
        node.alive = False
        if node is not self._seed:
            self.outcome.died += 1
            if node.planner is not None or not node.here:
                self._through(node)
        node.planner = None
        for request in list(node.wanted.values()):
            self._cancel(request)
        for request in list(node.serving):
            self._sends.halt(request)
        for source in node.sources.values():
            self._leave(source, node)
        listeners = list(node.listeners.values())
        node.listeners.clear()
        self._clock.at(self._clock.now + self.scenario.notice, self._notice, node, listeners)

    def _notice(self, gone: SimulatedNode, listeners: Sequence[SimulatedNode]) -> None:
        for node in listeners:
            if node.planner is not None and gone.name in node.sources:
                self._lose(node, gone)
                self._find_sources(node)

    def _leave(self, source: SimulatedNode, node: SimulatedNode) -> None:
        """A node closes a source's stream."""
        if source.listeners.pop(node.name, None) is not None:
            source.untold.leave(node.name)
            self._news.share(source, source.audience.leave(node.name))

    def _finish(self, node: SimulatedNode) -> None:
        node.planner = None
        self.outcome.seconds.append(self._clock.now - node.came)
        self.outcome.last = self._clock.now
        self._through(node)
        for source in node.sources.values():
            self._clock.at(self._clock.now + self._messages.delay(node, source), self._leave, source, node)

    def _through(self, node: SimulatedNode) -> None:
        """Nothing more is to come to a receiver."""
        self._unfinished -= 1
        if not self._unfinished:
            self._clock.stop()
        self.outcome.connections.append(len(node.sources.keys() | node.listeners.keys()))

    # Planning

    def _tell(self, node: SimulatedNode, event: Event) -> None:
        if node.planner is not None:
            actions = node.planner.handle(event)
            if actions:
                self._act(node, actions)

    def _tick(self, node: SimulatedNode, interval: float) -> None:
        if node.planner is not None:
            self._tell(node, Tick(self._clock.now))
            self._clock.at(self._clock.now + interval, self._tick, node, interval)

    def _act(self, node: SimulatedNode, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, (Opened, Declined, Done)):
                source = node.sources[action.peer]
                self._messages.say(node, source, self._hear_word, source, node.name, action)
            elif isinstance(action, Fetch):
                source = node.sources[action.peer]
                size = sum(self._lengths[action.run.start : action.run.stop])
                request = SimulatedRequest(source, node, action.run, size, action.lead)
                node.wanted[action.peer, action.run] = request
                self._clock.after(self._messages.delay(node, source), self._sends.ask, request)
            elif isinstance(action, Claims):
                self._news.claim(node, action.claim)
            elif isinstance(action, Cancel):
                self._break_off(node, node.wanted[action.peer, action.run])

    def _deliver(self, source: SimulatedNode, listeners: Sequence[SimulatedNode], events: Sequence[Event]) -> None:
        name = source.name
        for node in listeners:
            if node.planner is not None and name in node.sources:
                for event in events:
                    actions = node.planner.handle(event)
                    if actions:
                        self._act(node, actions)

    # Bytes

    def _ending(self, request: SimulatedRequest) -> None:
        """Most of a run has left its uploader."""
        delay = self._messages.delay(request.uploader, request.getter)
        self._clock.after(delay, self._nearly_land, request)

    def _nearly_land(self, request: SimulatedRequest) -> None:
        if not request.over:
            self._tell(request.getter, Ending(request.uploader.name, request.run, self._clock.now))

    def _sent(self, request: SimulatedRequest) -> None:
        """The last byte of a run has left its uploader."""
        uploader = request.uploader
        self.outcome.sent_bytes += request.size
        delay = self._messages.delay(uploader, request.getter)
        if self._messages.processors is None:
            self._clock.after(delay, self._land, request)
        else:
            seconds = request.size * self.scenario.costs.byte_seconds
            self._clock.after(delay, self._messages.work, request.getter, seconds, self._land, (request,))
        limit = self.scenario.seed_dies_after
        if uploader is self._seed and limit and uploader.sent >= limit * self.scenario.size:
            self._die(uploader)

    def _cancel(self, request: SimulatedRequest) -> None:
        """The getter wants it no more."""
        request.over = True
        request.getter.wanted.pop((request.uploader.name, request.run), None)
        self._sends.halt(request)

    def _break_off(self, node: SimulatedNode, request: SimulatedRequest) -> None:
        """The getter is tired of waiting: the uploader learns of it, and the planner that nothing came."""
        if not request.over:
            request.over = True
            del node.wanted[request.uploader.name, request.run]
            now = self._clock.now
            self._clock.at(now + self._messages.delay(node, request.uploader), self._sends.halt, request)
            self._clock.at(now, self._tell, node, Failed(request.uploader.name, request.run, FetchFault.SLOW, now))

    def _land(self, request: SimulatedRequest) -> None:
        """A run has arrived."""
        node = request.getter
        if request.over or node.planner is None:
            return
        node.wanted.pop((request.uploader.name, request.run), None)
        self._news.gather(node, request.run)
        self._tell(node, Fetched(request.uploader.name, request.run, self._clock.now))
        if node.planner.done:
            self._finish(node)


def simulate(scenario: Scenario) -> Outcome:
    """Run a scenario; equal scenarios come out equal."""
    with _seldom_collected():
        return Simulation(scenario).run()


@contextlib.contextmanager
def _seldom_collected() -> Iterator[None]:
    """Let the garbage collector look less often: events come and go by the million, and none refers to itself."""
    thresholds = gc.get_threshold()
    gc.set_threshold(GARBAGE, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
