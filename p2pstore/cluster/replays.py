"""Which requests have been here before. Pure: fed with names, numbers and times.

A sender numbers its requests, all of them, to whomever they go. Of each sender the highest number is kept, and which of
the ``WINDOW`` before that have been seen; what is older counts as seen. So a sender costs the same, however much it
asks.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

WINDOW = 4096
"""Numbers by which a request may be overtaken by others of its sender."""

MAX_SENDERS = 16384
"""Senders that are remembered, half a KiB each; each restart of a node makes a new one."""

_MASK = (1 << WINDOW) - 1


@dataclass(slots=True)
class _Sender:
    highest: int
    seen: int
    moment: float
    used: float


class Replays:
    """The senders of one server."""

    def __init__(self, seconds: float) -> None:
        """Requests are refused for their age ``seconds`` after they came; what was seen then need not be known."""
        self._seconds = seconds
        self._senders: OrderedDict[str, _Sender] = OrderedDict()  # the one that was longest silent comes first
        self._floor = float("-inf")

    def __len__(self) -> int:
        """Senders that are remembered."""
        return len(self._senders)

    def is_new(self, name: str, number: int, moment: float, now: float) -> bool:
        """Whether a request that was made at ``moment`` and comes ``now`` is here for the first time."""
        self._forget(now)
        sender = self._senders.get(name)
        if sender is None:
            while len(self._senders) >= MAX_SENDERS:
                # What a sender that is forgotten has sent must not come in again as a stranger's.
                _, silent = self._senders.popitem(last=False)
                self._floor = max(self._floor, silent.moment)
            if moment <= self._floor:
                return False
            self._senders[name] = _Sender(number, 1, moment, now)
            return True
        ahead = number - sender.highest
        if ahead > 0:
            sender.seen = (sender.seen << ahead | 1) & _MASK if ahead < WINDOW else 1
            sender.highest = number
        elif -ahead >= WINDOW or sender.seen >> -ahead & 1:
            return False
        else:
            sender.seen |= 1 << -ahead
        sender.moment, sender.used = max(sender.moment, moment), now
        self._senders.move_to_end(name)
        return True

    def _forget(self, now: float) -> None:
        while self._senders:
            name, sender = next(iter(self._senders.items()))
            if sender.used + self._seconds >= now:
                return
            del self._senders[name]
