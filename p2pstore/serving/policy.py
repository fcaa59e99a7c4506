"""The policy: where each request is computed and decoded, and which are refused. Pure: events in, decisions out.

One owner feeds it events, each with its clock's time (seconds, never going back), and carries out the decisions that
come back: a proxy with real engines, or a simulator. Equal events make equal decisions.

A request *arrives* and is placed on a prefill and a decode instance, or refused. Prefill instances compute one prompt
after the other; what each still has to do is the sum of what its prompts were expected to take, and what they did take
corrects the expectation (``p2pstore.serving.fit``). When a prompt is *computed* the decode instance is looked at again.
When an instance dies, what had no token yet is placed anew, and the rest is lost. One that fails a request is well
otherwise, unless it fails several in a row: then it is passed over for a while (``p2pstore.serving.ejection``).

Each prefill instance keeps the blocks that it computes or fetches. So what is fetched by many is soon on many; and a
prefix that many ask for while few hold it is copied to one more (``Replicate``; ``p2pstore.serving.hot``). What a step
of decode costs is fitted to the pace at which tokens come (``p2pstore.serving.learning``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pstore.serving.admission import MOST_RETRY_SECONDS, Admission, Gate, Objectives
from p2pstore.serving.costs import Costs
from p2pstore.serving.events import (
    Arrive,
    Decision,
    Decode,
    DecodeStart,
    Ejected,
    Event,
    Failed,
    Finish,
    InstanceDown,
    InstanceDraining,
    InstanceUp,
    Kind,
    Lost,
    Place,
    PrefillDone,
    Reason,
    Reject,
    Removed,
    RequestId,
    Stored,
    Tick,
    Token,
)
from p2pstore.serving.hot import HotPrefixes
from p2pstore.serving.instances import Instance, Tracked
from p2pstore.serving.learning import LearntCosts
from p2pstore.serving.lengths import OutputLengths
from p2pstore.serving.placement import Option, Placement, Placer, Prompt
from p2pstore.serving.prefixes import Prefixes
from p2pstore.serving.roster import Roster, least_used, lightest

BLOCK_TOKENS = 512
"""Tokens of a block, unless the settings say otherwise: those of the open traces."""

MOST_PLACEMENTS = 3
"""A request that was on so many instances that died is begun no more: it may be what kills them."""


@dataclass(frozen=True)
class PolicySettings:
    """How requests are placed and refused, and what the instances cost until it was observed."""

    placement: Placement = Placement.KVCACHE_CENTRIC
    admission: Admission = Admission.NONE
    objectives: Objectives = field(default_factory=Objectives)
    costs: Costs = field(default_factory=Costs)
    block_tokens: int = BLOCK_TOKENS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.block_tokens < 1:
            raise ValueError("a block must have at least one token")


class Policy:
    """Places requests."""

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self.costs = LearntCosts(settings.costs)
        self.lengths = OutputLengths()
        self.prefixes = Prefixes()
        self._gate = Gate(settings.admission, settings.objectives, settings.costs.decode)
        self._placer = Placer(settings.placement, settings.seed)
        self._in_turn = settings.placement in {Placement.RANDOM, Placement.ROUND_ROBIN}
        self._copies = settings.placement is Placement.KVCACHE_CENTRIC
        """Whether what is hot is copied: where prefixes are fetched at all."""
        self._token = settings.costs.transfer
        self._roster = Roster()
        self._hot = HotPrefixes()
        self._requests: dict[RequestId, Tracked] = {}
        self._placed = 0
        self._handlers = {
            Arrive: self._arrive,
            PrefillDone: self._prefill_done,
            DecodeStart: self._decode_start,
            Token: self._token_came,
            Failed: self._failed,
            Finish: self._finish,
            Stored: self._stored,
            Removed: self._removed,
            InstanceUp: self._up,
            InstanceDraining: self._draining,
            InstanceDown: self._down,
            Tick: self._tick,
        }

    def handle(self, event: Event, now: float) -> list[Decision]:
        """What to do now that this happened. Of requests and instances that are not there any more nothing is said.

        Raises ``ValueError`` for a request that arrives while one of its name is there.
        """
        handler = self._handlers[type(event)]
        return handler(event, now)  # type: ignore[operator,no-any-return]

    def instances(self) -> list[Instance]:
        """Those that are there, to be looked at."""
        return list(self._roster.every)

    def ejected(self, name: str, now: float) -> bool:
        """Whether an instance is passed over for the requests that it failed."""
        return self.ejected_since(name, now) is not None

    def ejected_since(self, name: str, now: float) -> float | None:
        """Since when, in seconds of the events' clock; None where it is not."""
        instance = self._roster.find(name)
        return instance.ejection.begun if instance is not None and now < instance.ejection.until else None

    # Requests

    def _arrive(self, event: Arrive, now: float) -> list[Decision]:
        if event.request in self._requests:
            raise ValueError(f"request {event.request!r} is there already")
        tracked = Tracked(event.request, event.length, event.blocks, now, event.limit, event.tenant)
        return [self._place(tracked, now)]

    def _place(self, tracked: Tracked, now: float) -> Decision:
        roster = self._roster
        prefills = roster.open(Kind.PREFILL, tracked.avoid, now)
        decodes = roster.open(Kind.DECODE, tracked.avoid, now)
        if not prefills or not decodes:
            return self._refused(tracked, Reject(tracked.request, Reason.NO_INSTANCE, MOST_RETRY_SECONDS), now)
        match = self.prefixes.match(tracked.blocks, roster.members)
        if self._copies:
            self._hot.count(tracked.blocks, match)
        seconds, block = self.costs.prefill.cost.seconds, self.settings.block_tokens
        prompt = Prompt(tracked.length, block, match, now, seconds, self._token)
        option = self._placer.choose(prompt, prefills, roster.every)
        tracked.shared = match.longest
        tracked.expected = self.lengths.expected(tracked.like, tracked.limit)
        tracked.first = now + option.ttft
        decode = least_used(decodes) if self._in_turn else lightest(decodes)
        tbt = self._gate.arriving(tracked, decode, now)
        ttft = tracked.first - tracked.arrived
        refused = self._gate.at_arrival(tracked.request, ttft, tbt)
        if refused is not None:
            return self._refused(tracked, refused, now)
        self._commit(tracked, option, decode, now)
        self.prefixes.expect(option.instance.number, tracked.blocks[match.lengths.get(option.instance.number, 0) :])
        source = option.source.name if option.source is not None else None
        return Place(tracked.request, option.instance.name, decode.name, source, option.reused, ttft, tbt)

    def _commit(self, tracked: Tracked, option: Option, decode: Instance, now: float) -> None:
        self._requests[tracked.request] = tracked
        self._placed += 1
        prefill = option.instance
        prefill.used = decode.used = self._placed
        if option.source is not None:
            option.source.sending = now + option.fetch
            option.source.used = self._placed
        tracked.placements += 1
        tracked.placed = now
        tracked.prefill, tracked.reused, tracked.work = prefill, option.reused, option.work
        tracked.begins = now + option.fetch
        prefill.enqueue(tracked, now)
        decode.assign(tracked)

    def _refused(self, tracked: Tracked, refused: Reject, now: float) -> Reject:
        self._requests.pop(tracked.request, None)
        self.costs.refused(refused.reason, now)
        return refused

    def _prefill_done(self, event: PrefillDone, now: float) -> list[Decision]:
        tracked = self._requests.get(event.request)
        if tracked is None or tracked.prefill is None:
            return []
        took = tracked.prefill.dequeue(tracked, now)
        if tracked.prefill.ejection.failures:
            self._served(tracked.prefill, tracked, now)
        tracked.prefill = None
        tracked.first = now
        self.costs.computed(tracked, took)
        if event.alone:
            self._leave(tracked)
            return []
        return [self._decode(tracked, now)]

    def _decode(self, tracked: Tracked, now: float) -> Decision:
        decode = tracked.decode
        if decode is None or decode.draining or decode.ejection.until > now:
            decodes = self._roster.open(Kind.DECODE, tracked.avoid, now)
            self._leave(tracked)
            if not decodes:
                return self._refused(tracked, Reject(tracked.request, Reason.NO_INSTANCE, MOST_RETRY_SECONDS), now)
            decode = least_used(decodes) if self._in_turn else lightest(decodes)
            self._placed += 1
            decode.used, tracked.placed = self._placed, now
            decode.assign(tracked)
        tbt = self._gate.now(tracked, decode)
        refused = self._gate.at_decode(tracked.request, tbt)
        if refused is not None:
            self._leave(tracked)
            return self._refused(tracked, refused, now)
        decode.take(tracked)
        return Decode(tracked.request, decode.name, tbt)

    def _decode_start(self, event: DecodeStart, now: float) -> list[Decision]:
        tracked = self._requests.get(event.request)
        if tracked is not None and tracked.decode is not None:
            tracked.joined = now
        return []

    def _token_came(self, event: Token, now: float) -> list[Decision]:
        tracked = self._requests.get(event.request)
        if tracked is not None:
            tracked.output += event.count
            decode = tracked.decode
            if decode is not None and tracked.request in decode.running:
                decode.tokens += event.count
                self.costs.decoded(tracked, decode, now, held=event.held)
                self._gate.cost = self.costs.decode.cost
        return []

    def _finish(self, event: Finish, now: float) -> list[Decision]:
        tracked = self._requests.pop(event.request, None)
        if tracked is None:
            return []
        if event.complete and tracked.decode is not None and tracked.decode.ejection.failures:
            self._served(tracked.decode, tracked, now)
        self._give_up(tracked, now)
        if event.complete:
            self.lengths.seen(tracked.known_as, event.output)
        return []

    def _failed(self, event: Failed, now: float) -> list[Decision]:
        tracked = self._requests.get(event.request)
        if tracked is None:
            return []
        ejected = self._eject(event, now) if event.instance not in tracked.avoid and not event.busy else []
        tracked.avoid |= {event.instance}
        self._give_up(tracked, now)
        return [self._anew(tracked, now), *ejected]

    def _eject(self, event: Failed, now: float) -> list[Decision]:
        instance = self._roster.find(event.instance)
        pause = None if instance is None else instance.ejection.failed(now)
        if instance is None or pause is None:
            return []
        self._roster.look(now)
        return [Ejected(instance.name, pause, instance.ejection.counted)]

    def _served(self, instance: Instance, tracked: Tracked, now: float) -> None:
        """An instance that had failed others did well what it was asked."""
        if instance.ejection.served(tracked.placed):
            self._roster.look(now)

    def _anew(self, tracked: Tracked, now: float) -> Decision:
        """Begin again, where no token has come and it was not begun too often."""
        if tracked.output or tracked.placements >= MOST_PLACEMENTS:
            del self._requests[tracked.request]
            return Lost(tracked.request)
        tracked.joined = None
        return self._place(tracked, now)

    def _give_up(self, tracked: Tracked, now: float) -> None:
        """Neither compute nor decode it any more."""
        if tracked.prefill is not None:
            tracked.prefill.dequeue(tracked, now)
            self.prefixes.unexpect(tracked.prefill.number, tracked.blocks)
            tracked.prefill = None
        self._leave(tracked)

    @staticmethod
    def _leave(tracked: Tracked) -> None:
        if tracked.decode is not None:
            tracked.decode.leave(tracked)

    # Blocks

    def _stored(self, event: Stored, _: float) -> list[Decision]:
        instance = self._roster.find(event.instance)
        if instance is not None:
            self.prefixes.stored(instance.number, event.blocks)
        return []

    def _removed(self, event: Removed, _: float) -> list[Decision]:
        instance = self._roster.find(event.instance)
        if instance is not None:
            self.prefixes.removed(instance.number, event.blocks)
        return []

    def _tick(self, _: Tick, now: float) -> list[Decision]:
        """Copy what is hot, and doubt what is believed for want of other news."""
        self.costs.tick(now)
        self._gate.cost = self.costs.decode.cost
        return list(self._hot.copies(self.prefixes, self._roster, now)) if self._copies else []

    # Instances

    def _up(self, event: InstanceUp, now: float) -> list[Decision]:
        known = self._roster.find(event.name)
        if known is not None and known.kind is event.kind:
            self._roster.drain(known, now, draining=False)
            return []
        decisions = [] if known is None else self._down(InstanceDown(event.name), now)
        self._roster.add(event.name, event.kind, now)
        return decisions

    def _draining(self, event: InstanceDraining, now: float) -> list[Decision]:
        instance = self._roster.find(event.name)
        if instance is not None:
            self._roster.drain(instance, now, draining=True)
        return []

    def _down(self, event: InstanceDown, now: float) -> list[Decision]:
        instance = self._roster.remove(event.name, now)
        if instance is None:
            return []
        self.prefixes.forget(instance.number)
        decisions: list[Decision] = []
        for tracked in [*instance.queue.values(), *instance.running.values(), *instance.coming.values()]:
            if tracked.decode is instance and tracked.prefill is not None:
                self._leave(tracked)  # it is being computed: who decodes it is found when it is
                continue
            if tracked.prefill is instance:
                instance.dequeue(tracked, now)
                tracked.prefill = None
            self._leave(tracked)
            decisions.append(self._anew(tracked, now))
        return decisions
