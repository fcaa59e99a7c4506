"""Tells the policy what happens, and hands its decisions to the requests that they are about. No I/O.

Whoever serves a request (a ``Rider``) asks when it arrives, when its prompt is computed and when an instance failed it.
In between the policy may move it, for the death of an instance is an event of all that were there: it is then told
(``moved``). What instances hold is told by anybody who knows (``told``): the store's index, or an engine's KV events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from p2pstore.serving.events import (
    Arrive,
    Block,
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
    Lost,
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
from p2pstore.serving.proxy.assumed import Assumed
from p2pstore.serving.proxy.prompts import Prompt
from p2pstore.serving.proxy.requests import Asked

log = logging.getLogger(__name__)

Fate = Place | Decode | Reject | Lost


class Rider(Protocol):
    """A request under way."""

    @property
    def asked(self) -> Asked:
        """What its client asks."""

    def moved(self, fate: Fate) -> None:
        """It goes on elsewhere, or not at all. Called in the middle of other calls: it only notes that."""


class Dispatcher:
    """The policy's owner."""

    def __init__(self, policy: Policy, clock: Callable[[], float], *, p2p: bool = False) -> None:
        """``p2p``: until its first token a request needs the prefill instance, which has its KV cache."""
        self.policy = policy
        self._p2p = p2p
        self._sources: dict[int, str] = {}
        """Who has the KV cache of those that wait for their first token, where it goes from there."""
        self._clock = clock
        self._riders: dict[int, Rider] = {}
        self._blocks: dict[int, Sequence[Block]] = {}
        self._computed: set[int] = set()
        """Requests whose prompt an instance has computed: it took the key that their client showed."""
        self._last = 0
        self._assumed = Assumed()
        self._known: set[str] = set()
        """Instances of which others tell what they hold."""
        self.on_ejected: Callable[[Ejected], None] = _unheard
        """Is told of instances that are passed over for a while."""
        self.on_replicate: Callable[[Replicate], None] = _unheard
        """Is told what is to be copied."""

    def others_tell(self, instance: str) -> None:
        """Somebody knows what an instance holds: no longer assume that it holds what it computed."""
        self._known.add(instance)
        self._assumed.forget(instance)

    def nobody_tells(self, instance: str) -> None:
        """Nobody knows any more: assume again."""
        self._known.discard(instance)

    def told(self, event: Stored | Removed) -> None:
        """Blocks came to an instance, or went from it."""
        self._handle(event)

    def computed(self, instance: str, blocks: Sequence[Block]) -> None:
        """An instance computed blocks, or took them from the store: unless others tell, it holds them from now on."""
        if instance not in self._known:
            for event in self._assumed.computed(instance, blocks):
                self._handle(event)

    def beginning_with(self, blocks: Sequence[Block]) -> Rider | None:
        """A request under way whose prompt begins with these blocks and was computed: an instance let its client in."""
        count, wanted = len(blocks), tuple(blocks)
        found = (number for number in self._computed if tuple(self._blocks[number][:count]) == wanted)
        return self._riders.get(next(found, 0))

    # Requests

    def arrive(self, rider: Rider, prompt: Prompt, limit: int | None, tenant: str) -> tuple[int, Fate]:
        """Where a request goes, and its number from now on."""
        self._last += 1
        number = self._last
        self._riders[number] = rider
        self._blocks[number] = prompt.blocks
        fate = self._handle(Arrive(number, prompt.length, prompt.blocks, limit, tenant), number)
        assert fate is not None  # noqa: S101 - an arrival is always answered
        return number, fate

    def prefilled(self, number: int, instance: str, *, alone: bool = False) -> Fate | None:
        """Its prompt is computed there; None where it was moved at that moment, or is decoded there (``alone``)."""
        blocks = self._blocks.get(number, ())
        fate = self._handle(PrefillDone(number, alone), number)
        self._computed.add(number)
        if blocks:
            self.computed(instance, blocks)
        if self._p2p and isinstance(fate, Decode):
            self._sources[number] = instance
        return fate

    def failed(self, number: int, instance: str, *, busy: bool = False) -> Fate:
        """An instance failed it: where it goes now. ``busy``: it said that it has too much to do."""
        self._sources.pop(number, None)
        return self._handle(Failed(number, instance, busy), number) or Lost(number)

    def begun(self, number: int) -> None:
        """Its first token came."""
        self._sources.pop(number, None)
        self._handle(DecodeStart(number), number)

    def tokens(self, number: int, count: int, *, held: bool = False) -> None:
        """More of them came; ``held``: they had to wait for the client to take those before."""
        self._handle(Token(number, count, held), number)

    def finish(self, number: int, output: int, *, complete: bool) -> None:
        """It is over."""
        self._handle(Finish(number, output, complete), number)
        self._sources.pop(number, None)
        self._riders.pop(number, None)
        self._blocks.pop(number, None)
        self._computed.discard(number)

    # Instances

    def instance(self, event: InstanceUp | InstanceDraining | InstanceDown) -> None:
        """An instance came, is to take nothing more, or is gone."""
        if isinstance(event, InstanceDown):
            self._assumed.forget(event.name)
        self._handle(event)
        if isinstance(event, InstanceDown):
            for number in [number for number, source in self._sources.items() if source == event.name]:
                fate = self.failed(number, event.name)
                self._riders[number].moved(fate)

    def ejected(self, instance: str) -> bool:
        """Whether an instance is passed over now for what it failed."""
        return self.ejected_since(instance) is not None

    def ejected_since(self, instance: str) -> float | None:
        """Since when it is passed over, by the proxy's clock; None where it is not."""
        return self.policy.ejected_since(instance, self._clock())

    def tick(self) -> None:
        """Time went on."""
        self._handle(Tick())

    def _handle(self, event: Event, asks: int | None = None) -> Fate | None:
        """Tell the policy. The decision about the request that asks is returned, the others are handed on."""
        mine: Fate | None = None
        for decision in self.policy.handle(event, self._clock()):
            if isinstance(decision, Replicate):
                self.on_replicate(decision)
            elif isinstance(decision, Ejected):
                self.on_ejected(decision)
            elif decision.request == asks:
                mine = decision
            else:
                self._hand_on(decision)
        return mine

    def _hand_on(self, decision: Fate) -> None:
        rider = self._riders.get(decision.request)  # type: ignore[call-overload]
        if rider is None:
            log.debug("a decision about a request that is over: %s", decision)
        else:
            self._sources.pop(decision.request, None)  # type: ignore[call-overload]
            rider.moved(decision)


def _unheard(_: Decision) -> None:
    """Nobody is told."""
