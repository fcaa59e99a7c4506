"""Who may upload now: a few large sends at once, shared fairly between peers. Pure; the time is the caller's.

When a seed sends thirty chunks at once, each takes thirty times as long, and nobody has anything to pass on until then.
When it sends a few at a time, the first copies leave early, and their receivers become sources while it sends the next.
A send that takes much longer than sends take, because its receiver is slow, goes on without its slot.

That needs no event but the passing of time: whoever has the queue calls ``tick`` when ``due`` is over.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from typing import Generic, TypeVar

from engine.patience import Patience

SLOTS = 8
"""Sends at once: enough for a fair part of links that several senders share, few enough to end one after the other."""

LARGE_BYTES = 256 * 1024
"""Sends of fewer bytes need no slot: they are over before a queue would help."""

PATIENCE = 3.0
"""A send is slow when it takes so many times longer than sends take on average."""

MIN_PATIENCE = 0.25
"""Seconds before which no send is called slow."""

FIRST_PATIENCE_SECONDS = 10.0
"""How long a send keeps its slot while none has ended yet, so that nobody knows how long sends take. Half of the time
after which a getter that was sent nothing turns to others."""

T = TypeVar("T")


class UploadQueue(Generic[T]):
    """Requests that wait for a slot, by peer; peers take turns, each in its own order, and none has more than half.

    Only a peer that is alone is lent as many more, so that each of its connections brings something; and who comes then
    finds as many free as if nothing were lent.

    Times are in seconds and never go back. Requests are told apart by their hash. As many slow sends as there are slots
    go on beside them.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self.slots = slots
        self._most_each = max(1, slots // 2)
        self._each: Counter[str] = Counter()  # slots that a peer has
        self._lent = 0
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._running: dict[T, tuple[str, float]] = {}  # whose, and when it began, the oldest first
        self._slow: set[T] = set()
        self._patience = Patience(MIN_PATIENCE, first=FIRST_PATIENCE_SECONDS)

    @property
    def busy(self) -> int:
        """Sends that have a slot, but for those that are lent one."""
        return len(self._running) - self._lent

    def waiting(self, peer: str) -> int:
        """Requests of a peer that wait for a slot."""
        return len(self._waiting.get(peer, ()))

    def ask(self, peer: str, request: T, now: float) -> list[T]:
        """A peer wants to be sent something: the requests that begin now, which may or may not be this one."""
        self._waiting.setdefault(peer, deque()).append(request)
        return self._begin(now)

    def done(self, request: T, now: float) -> list[T]:
        """A send ended: the requests that begin in its place."""
        if request not in self._running:
            self._slow.discard(request)
        else:
            self._patience.took(now - self._release(request))
        return self._begin(now)

    def tick(self, now: float) -> list[T]:
        """Time has passed: the requests that begin in the place of sends that turned out to be slow."""
        return self._begin(now)

    @property
    def due(self) -> float:
        """The first time at which ``tick`` will do something, if nothing else happens before; infinite if never."""
        if not self._waiting or not self._running or len(self._slow) >= self.slots:
            return math.inf
        return math.nextafter(self._patient_until(), math.inf)

    def give_up(self, peer: str, request: T) -> bool:
        """A request is not wanted any more; whether it was waiting."""
        requests = self._waiting.get(peer)
        if requests is None or request not in requests:
            return False
        requests.remove(request)
        if not requests:
            del self._waiting[peer]
        return True

    def _begin(self, now: float) -> list[T]:
        self._part_with_slow(now)
        begun: list[T] = []
        while (peer := self._next()) is not None:
            requests = self._waiting.pop(peer)
            request = requests.popleft()
            if requests:
                self._waiting[peer] = requests
            self._running[request] = peer, now
            self._each[peer] += 1
            self._lent += self._each[peer] > self._most_each
            begun.append(request)
        return begun

    def _next(self) -> str | None:
        """The peer whose turn it is, if there is a slot for it."""
        if self.busy < self.slots:
            peer = next((p for p in self._waiting if self._each[p] < self._most_each), None)
            if peer is not None:
                return peer
        if len(self._waiting) == 1 and len(self._each) == 1:
            peer = next(iter(self._waiting))
            if self._most_each <= self._each[peer] < self.slots:
                return peer
        return None

    def _release(self, request: T) -> float:
        """Take a request's slot back; when it got it."""
        peer, began = self._running.pop(request)
        self._lent -= self._each[peer] > self._most_each
        self._each[peer] -= 1
        if not self._each[peer]:
            del self._each[peer]
        return began

    def _part_with_slow(self, now: float) -> None:
        """Take their slots from sends that take too long."""
        while self._running and len(self._slow) < self.slots and now > self._patient_until():
            oldest = next(iter(self._running))
            self._release(oldest)
            self._slow.add(oldest)

    def _patient_until(self) -> float:
        """Until when the oldest send may keep its slot."""
        return next(iter(self._running.values()))[1] + self._patience.limit(PATIENCE)
