"""The seed and the receivers of a simulation, and what they ask of one another."""

from __future__ import annotations

import math

from engine.serving.upload_slots import UploadQueue
from p2pstore.bench.links import Flow, SimulatedLink
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.audience import Audience
from p2pstore.swarm.gateway import Claim
from p2pstore.swarm.planner import Planner
from p2pstore.swarm.untold import Untold


class SimulatedRequest:
    """A run that one node wants from another."""

    __slots__ = ("ending", "flow", "getter", "lead", "over", "run", "size", "uploader")

    def __init__(self, uploader: SimulatedNode, getter: SimulatedNode, run: range, size: int, lead: float) -> None:
        self.uploader = uploader
        self.getter = getter
        self.run = run
        self.size = size
        self.flow: Flow | None = None
        self.lead = lead
        self.ending = not lead
        self.over = False


class SimulatedNode:
    """The seed or a receiver. The seed, and who is through, plans nothing."""

    def __init__(self, name: str, zone: int, rate: float, slots: int, had: Bitmap, audience: Audience) -> None:
        self.name = name
        self.zone = zone
        self.had = had
        self.up, self.down = SimulatedLink(rate), SimulatedLink(rate)
        self.uploads: UploadQueue[SimulatedRequest] = UploadQueue(slots)
        self.uploads_due = math.inf
        self.grants_due = math.inf
        self.audience = audience
        self.planner: Planner | None = None
        self.sources: dict[str, SimulatedNode] = {}
        self.listeners: dict[str, SimulatedNode] = {}
        self.met: set[str] = set()
        self.wanted: dict[tuple[str, range], SimulatedRequest] = {}
        self.serving: dict[SimulatedRequest, None] = {}  # in the order of asking, so that equal seeds make equal runs
        self.untold = Untold()
        self.claims: dict[int, Claim] = {}  # to be its zone's gateways, as its listeners were told
        self.gathering = False
        self.busy_until = 0.0
        self.here = False
        self.alive = True
        self.came = 0.0
        self.sent = 0.0

    def may_give_up(self, newcomer: SimulatedNode) -> list[SimulatedNode]:
        """The sources whose place a newcomer may get, as ``p2pstore.pull.places`` says."""
        near = newcomer.zone == self.zone
        others = [each for each in self.sources.values() if (each.zone == self.zone) == near and not each.had.full]
        if near:  # who gives a gateway up takes it for gone
            others = [each for each in others if not any(claim.own for claim in each.claims.values())]
        return others
