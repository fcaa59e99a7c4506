"""Who may upload now: a bounded number of large sends at once, shared fairly between peers. Pure.

When a seed sends thirty chunks at once, each takes thirty times as long, and nobody has anything to pass on until then.
When it sends a few at a time, the first copies leave early, and their receivers become sources while it sends the next.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

SLOTS = 8
"""Sends at once: enough for several cores to fill a fast network, few enough to finish one after the other."""

LARGE_BYTES = 256 * 1024
"""Sends of fewer bytes need no slot: they are over before a queue would help."""

T = TypeVar("T")


class UploadQueue(Generic[T]):
    """Requests that wait for a slot, by peer; peers take turns, each in its own order."""

    def __init__(self, slots: int = SLOTS) -> None:
        self.slots = slots
        self.busy = 0
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()

    def ask(self, peer: str, request: T) -> bool:
        """A peer wants to be sent something: True if it may begin now; else it waits, and ``done`` will name it."""
        if self.busy < self.slots:
            self.busy += 1
            return True
        self._waiting.setdefault(peer, deque()).append(request)
        return False

    def done(self) -> T | None:
        """A send ended: the request that may begin in its place, if any waits."""
        if not self._waiting:
            self.busy -= 1
            return None
        peer, requests = self._waiting.popitem(last=False)
        request = requests.popleft()
        if requests:
            self._waiting[peer] = requests
        return request

    def give_up(self, peer: str, request: T) -> bool:
        """A request is not wanted any more; whether it was waiting."""
        requests = self._waiting.get(peer)
        if requests is None or request not in requests:
            return False
        requests.remove(request)
        if not requests:
            del self._waiting[peer]
        return True
