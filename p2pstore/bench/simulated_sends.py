"""What nodes of a simulation send: requests wait for an upload slot, then their bytes flow over links."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from engine.serving.upload_slots import LARGE_BYTES
from p2pstore.bench.links import Flow, Links, SimulatedLink
from p2pstore.bench.scenario import Scenario
from p2pstore.bench.simulated_node import SimulatedNode, SimulatedRequest
from p2pstore.bench.virtual_clock import VirtualClock


class Sends:
    """All that is on its way between the nodes of one simulation."""

    def __init__(
        self,
        clock: VirtualClock,
        scenario: Scenario,
        on_ending: Callable[[SimulatedRequest], None],
        on_sent: Callable[[SimulatedRequest], None],
    ) -> None:
        """``on_ending`` is called when all of a request but its lead has left its uploader, ``on_sent`` at its end."""
        self._clock = clock
        self._on_ending = on_ending
        self._on_sent = on_sent
        self._links = Links(self._expect_flow)
        self.crossed_in: dict[int, float] = {}
        self.crossed_out: dict[int, float] = {}
        """Bytes that came into each zone from others, and that left it for others."""
        self._zones: list[tuple[SimulatedLink, SimulatedLink]] = []
        if scenario.zone_rate:
            self._zones = [
                (SimulatedLink(scenario.zone_rate), SimulatedLink(scenario.zone_rate)) for _ in range(scenario.zones)
            ]

    def _expect_flow(self, due: float, flow: Flow) -> None:
        self._clock.at(due, self._check, flow, due)

    def ask(self, request: SimulatedRequest) -> None:
        """A request reaches its uploader."""
        uploader = request.uploader
        if request.over or not uploader.alive:
            return
        uploader.serving[request] = None
        if request.size < LARGE_BYTES:
            self._begin([request])
        else:
            self._begin(uploader.uploads.ask(request.getter.name, request, self._clock.now))
            self._expect(uploader)

    def _expect(self, uploader: SimulatedNode) -> None:
        """See to it that a node's uploads hear of the time, when that is due."""
        due = uploader.uploads.due
        if due < uploader.uploads_due:
            uploader.uploads_due = due
            self._clock.at(due, self._pass_time, uploader)

    def _pass_time(self, uploader: SimulatedNode) -> None:
        if uploader.alive and uploader.uploads_due == self._clock.now:
            uploader.uploads_due = math.inf
            self._begin(uploader.uploads.tick(self._clock.now))
            self._expect(uploader)

    def _begin(self, requests: Sequence[SimulatedRequest]) -> None:
        for request in requests:
            uploader, getter = request.uploader, request.getter
            links: tuple[SimulatedLink, ...] = (uploader.up, getter.down)
            if self._zones and uploader.zone != getter.zone:
                links += (self._zones[uploader.zone][0], self._zones[getter.zone][1])
            request.flow = Flow(request.size * (1 - request.lead), links, request)
            self._links.start(request.flow, self._clock.now)

    def _check(self, flow: Flow, due: float) -> None:
        if flow.due != due or not self._links.check(flow, self._clock.now):
            return
        request = flow.item
        assert isinstance(request, SimulatedRequest)  # noqa: S101 - we made it
        if not request.ending:
            request.ending = True
            flow.left = request.size * request.lead
            flow.due = self._clock.now + flow.left / flow.rate
            self._clock.at(flow.due, self._check, flow, flow.due)
            self._on_ending(request)
            return
        uploader, getter = request.uploader, request.getter
        uploader.sent += request.size
        if uploader.zone != getter.zone:
            for crossed, zone in ((self.crossed_in, getter.zone), (self.crossed_out, uploader.zone)):
                crossed[zone] = crossed.get(zone, 0.0) + request.size
        self.halt(request)
        self._on_sent(request)

    def halt(self, request: SimulatedRequest) -> None:
        """A send is over, or never began; the next one takes its place."""
        uploader = request.uploader
        if uploader.serving.pop(request, 0) == 0:
            return
        if request.flow is None:
            uploader.uploads.give_up(request.getter.name, request)
            return
        self._links.stop(request.flow, self._clock.now)
        request.flow.item = None  # so that both are freed without the garbage collector
        if request.size >= LARGE_BYTES:
            following = uploader.uploads.done(request, self._clock.now)
            if uploader.alive:
                self._begin(following)
                self._expect(uploader)
