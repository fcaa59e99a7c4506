"""The policy: where each request is computed and decoded, and which are refused. Pure: events in, decisions out.

One owner feeds it events, each with its clock's time (seconds, never going back), and carries out the decisions that
come back: a proxy with real engines, or a simulator. Equal events make equal decisions.

A request *arrives* and is placed on a prefill and a decode instance, or refused. Prefill instances compute one prompt
after the other; what each still has to do is the sum of what its prompts were expected to take, and what they did take
corrects the expectation (``p2pstore.serving.fit``). When a prompt is *computed* the decode instance is looked at again.
When an instance dies, what had no token yet is placed anew, and the rest is lost.

Each prefill instance keeps the blocks that it computes or fetches. So what is fetched by many is soon on many; and a
prefix that many ask for while few hold it is copied to one more (``Replicate``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pstore.serving.admission import MOST_RETRY_SECONDS, Admission, Gate, Objectives
from p2pstore.serving.costs import Costs
from p2pstore.serving.events import (
    Arrive,
    Block,
    Decision,
    Decode,
    DecodeStart,
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
    Replicate,
    RequestId,
    Stored,
    Tick,
    Token,
)
from p2pstore.serving.fit import PrefillFit
from p2pstore.serving.instances import Instance, Tracked
from p2pstore.serving.lengths import OutputLengths
from p2pstore.serving.placement import Option, Placement, Placer, Prompt
from p2pstore.serving.prefixes import Match, Prefixes, members

BLOCK_TOKENS = 512
"""Tokens of a block, unless the settings say otherwise: those of the open traces."""

MOST_PLACEMENTS = 3
"""A request that was on so many instances that died is begun no more: it may be what kills them."""

HOT_SECONDS = 60.0
HOT_HITS = 8
"""A prefix is hot when it was asked for so often, for each instance that holds it, within the first."""

MAX_COUNTED = 100_000
"""Prefixes whose hits are counted; others are not until the count begins again."""


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
        self.fit = PrefillFit(settings.costs.prefill)
        self.lengths = OutputLengths()
        self.prefixes = Prefixes()
        self._gate = Gate(settings.admission, settings.objectives, settings.costs.decode)
        self._placer = Placer(settings.placement, settings.seed)
        self._in_turn = settings.placement in {Placement.RANDOM, Placement.ROUND_ROBIN}
        self._copies = settings.placement is Placement.KVCACHE_CENTRIC
        """Whether what is hot is copied: where prefixes are fetched at all."""
        self._token = settings.costs.transfer
        self._instances: dict[str, Instance] = {}
        self._open: dict[Kind, list[Instance]] = {kind: [] for kind in Kind}
        """Those of each kind that take requests."""
        self._every: list[Instance] = []
        self._members = 0
        """All that are there, and their mask."""
        self._requests: dict[RequestId, Tracked] = {}
        self._placed = 0
        self._hits: dict[Block, tuple[int, Sequence[Block]]] = {}
        self._hits_since = 0.0
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
        return list(self._instances.values())

    # Requests

    def _arrive(self, event: Arrive, now: float) -> list[Decision]:
        if event.request in self._requests:
            raise ValueError(f"request {event.request!r} is there already")
        tracked = Tracked(event.request, event.length, event.blocks, now, event.limit, event.tenant)
        return [self._place(tracked, now)]

    def _place(self, tracked: Tracked, now: float) -> Decision:
        prefills, decodes = self._open[Kind.PREFILL], self._open[Kind.DECODE]
        if tracked.avoid:
            prefills, decodes = _others(prefills, tracked.avoid), _others(decodes, tracked.avoid)
        if not prefills or not decodes:
            return self._refused(tracked, Reject(tracked.request, Reason.NO_INSTANCE, MOST_RETRY_SECONDS))
        match = self.prefixes.match(tracked.blocks, self._members)
        self._count(tracked.blocks, match)
        seconds, block = self.fit.cost.seconds, self.settings.block_tokens
        prompt = Prompt(tracked.length, block, match, now, seconds, self._token)
        option = self._placer.choose(prompt, prefills, self._every)
        tracked.shared = match.longest
        tracked.expected = self.lengths.expected(_keys(tracked), tracked.limit)
        tracked.first = now + option.ttft
        decode = min(decodes, key=_least_used) if self._in_turn else _lightest(decodes)
        tbt = self._gate.arriving(tracked, decode, now)
        ttft = tracked.first - tracked.arrived
        refused = self._gate.at_arrival(tracked.request, ttft, tbt)
        if refused is not None:
            return self._refused(tracked, refused)
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
        tracked.prefill, tracked.reused, tracked.work = prefill, option.reused, option.work
        tracked.begins = now + option.fetch
        prefill.enqueue(tracked, now)
        decode.assign(tracked)

    def _refused(self, tracked: Tracked, refused: Reject) -> Reject:
        self._requests.pop(tracked.request, None)
        return refused

    def _prefill_done(self, event: PrefillDone, now: float) -> list[Decision]:
        tracked = self._requests.get(event.request)
        if tracked is None or tracked.prefill is None:
            return []
        took = tracked.prefill.dequeue(tracked, now)
        tracked.prefill = None
        tracked.first = now
        if took is not None and took > 0:
            self.fit.observe(tracked.length, tracked.reused, took)
        return [self._decode(tracked)]

    def _decode(self, tracked: Tracked) -> Decision:
        decode = tracked.decode
        if decode is None or decode.draining:
            decodes = _others(self._open[Kind.DECODE], tracked.avoid)
            self._leave(tracked)
            if not decodes:
                return self._refused(tracked, Reject(tracked.request, Reason.NO_INSTANCE, MOST_RETRY_SECONDS))
            decode = min(decodes, key=_least_used) if self._in_turn else _lightest(decodes)
            self._placed += 1
            decode.used = self._placed
            decode.assign(tracked)
        tbt = self._gate.now(tracked, decode)
        refused = self._gate.at_decode(tracked.request, tbt)
        if refused is not None:
            self._leave(tracked)
            return self._refused(tracked, refused)
        decode.take(tracked)
        return Decode(tracked.request, decode.name, tbt)

    def _decode_start(self, event: DecodeStart, now: float) -> list[Decision]:
        tracked = self._requests.get(event.request)
        if tracked is not None and tracked.decode is not None:
            tracked.joined = now
        return []

    def _token_came(self, event: Token, _: float) -> list[Decision]:
        tracked = self._requests.get(event.request)
        if tracked is not None:
            tracked.output += event.count
            if tracked.decode is not None and tracked.request in tracked.decode.running:
                tracked.decode.tokens += event.count
        return []

    def _finish(self, event: Finish, now: float) -> list[Decision]:
        tracked = self._requests.pop(event.request, None)
        if tracked is None:
            return []
        self._give_up(tracked, now)
        if event.complete:
            self.lengths.seen(_known_as(tracked), event.output)
        return []

    def _failed(self, event: Failed, now: float) -> list[Decision]:
        tracked = self._requests.get(event.request)
        if tracked is None:
            return []
        tracked.avoid |= {event.instance}
        self._give_up(tracked, now)
        return [self._anew(tracked, now)]

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
        instance = self._instances.get(event.instance)
        if instance is not None:
            self.prefixes.stored(instance.number, event.blocks)
        return []

    def _removed(self, event: Removed, _: float) -> list[Decision]:
        instance = self._instances.get(event.instance)
        if instance is not None:
            self.prefixes.removed(instance.number, event.blocks)
        return []

    def _count(self, blocks: Sequence[Block], match: Match) -> None:
        if match.best and self._copies:
            last = blocks[match.best - 1]
            count, prefix = self._hits.get(last, (0, ()))
            if count or len(self._hits) < MAX_COUNTED:
                self._hits[last] = (count + 1, prefix or blocks[: match.best])

    def _tick(self, _: Tick, now: float) -> list[Decision]:
        """Copy what is hot, and count anew from time to time."""
        if now - self._hits_since < HOT_SECONDS:
            return []
        hits, self._hits, self._hits_since = self._hits, {}, now
        made = (self._copied(blocks, count, now) for count, blocks in hits.values() if count >= HOT_HITS)
        return [decision for decision in made if decision is not None]

    def _copied(self, blocks: Sequence[Block], count: int, now: float) -> Replicate | None:
        match = self.prefixes.match(blocks, self._members)
        holders = [one for one in self._every if match.holds(one.number)]
        if match.best < len(blocks) or count < HOT_HITS * len(holders):
            return None
        lacking = [one for one in self._open[Kind.PREFILL] if match.lengths.get(one.number, 0) < len(blocks)]
        if not lacking:
            return None
        source = min(holders, key=lambda one: (one.sending, one.used))
        target = min(lacking, key=lambda one: (one.wait(now), one.used))
        return Replicate(blocks, source.name, target.name)

    # Instances

    def _look(self) -> None:
        self._every = list(self._instances.values())
        self._members = members(one.number for one in self._every)
        for kind in Kind:
            self._open[kind] = [one for one in self._every if one.kind is kind and not one.draining]

    def _up(self, event: InstanceUp, now: float) -> list[Decision]:
        known = self._instances.get(event.name)
        if known is not None and known.kind is event.kind:
            known.draining = False
            self._look()
            return []
        decisions = [] if known is None else self._down(InstanceDown(event.name), now)
        taken = {one.number for one in self._instances.values()}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        self._instances[event.name] = Instance(event.name, event.kind, number)
        self._look()
        return decisions

    def _draining(self, event: InstanceDraining, _: float) -> list[Decision]:
        instance = self._instances.get(event.name)
        if instance is not None:
            instance.draining = True
            self._look()
        return []

    def _down(self, event: InstanceDown, now: float) -> list[Decision]:
        instance = self._instances.pop(event.name, None)
        if instance is None:
            return []
        self._look()
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


def _others(instances: list[Instance], avoid: frozenset[str]) -> list[Instance]:
    """Those that did not fail the request, or all where each did."""
    return [one for one in instances if one.name not in avoid] or instances


def _least_used(instance: Instance) -> int:
    return instance.used


def _lightest(instances: Sequence[Instance]) -> Instance:
    """The one with the fewest tokens of context; of equals, the one that waited longest."""
    found = instances[0]
    least = found.tokens + found.coming_tokens
    for instance in instances:
        tokens = instance.tokens + instance.coming_tokens
        if tokens < least or (tokens == least and instance.used < found.used):
            found, least = instance, tokens
    return found


def _keys(tracked: Tracked) -> list[tuple[str, Block]]:
    """What a request's output is expected by: where its prompt parts from others', then its tenant."""
    keys: list[tuple[str, Block]] = []
    if tracked.shared:
        keys.append(("block", tracked.blocks[tracked.shared - 1]))
    if tracked.tenant:
        keys.append(("tenant", tracked.tenant))
    return keys


def _known_as(tracked: Tracked) -> list[tuple[str, Block]]:
    """What its output says something about: prompts that part where it did, or that go on where it ends."""
    keys = _keys(tracked)
    keys += [("block", block) for block in tracked.blocks[-2:]]
    return keys
