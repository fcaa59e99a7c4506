"""Processor time in a simulation: what a machine that all nodes share takes for bytes and for what they say.

``bench broadcast`` runs all its nodes on one machine, whose processors come to be what there is least of; what is said
is heard late then. The model is the plainest that has this: so many processors, and one queue before them.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

PAYLOAD = 1448 / 1514
"""The part of a card's bytes that is the object's: packets of 1,500 bytes, with headers of Ethernet, IP and TCP with
timestamps (RFC 7323)."""


@dataclass(frozen=True)
class Costs:
    """Seconds of processor, of both ends together and with the kernel's part.

    ``byte_seconds``: to send, receive, hash and write one byte. ``message_seconds``: to say something and to hear it.
    ``wake_seconds``: what comes on top where a node has nothing else to do when it hears something; who is busy hears
    several things at once.
    """

    byte_seconds: float
    message_seconds: float
    wake_seconds: float = 0.0

    def __post_init__(self) -> None:
        if min(self.byte_seconds, self.message_seconds, self.wake_seconds) < 0:
            raise ValueError("processors take time, and do not give it back")


FREE = Costs(0.0, 0.0)

WAKE_TO_MESSAGE = 0.75
"""What a wake-up costs over what a message does. With it the costs measured with six receivers explain what the agents
of broadcasts to 8, 16 and 32 took for a GB, where messages come together ever more."""

COSTS = Costs(byte_seconds=2.2e-9, message_seconds=2e-4, wake_seconds=1.5e-4)
"""Of a virtual machine of two cores (AMD EPYC, Linux 6.18, Python 3.11). They are near what ``bench simulate
--calibrate`` measured in several runs (2.4 ns, 0.17 ms and 0.13 ms in the last), and rounded so that broadcasts to
8, 16 and 32 come out, too."""


class Processors:
    """So many that take one piece of work after another, in the order in which it comes."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError("there is one processor at least")
        self.spent = 0.0
        """Seconds that they were at work, all together."""
        self._free = [0.0] * count  # when each has done what it was given, a heap

    def take(self, now: float, seconds: float) -> float:
        """Give them work that takes so many seconds: when it is done."""
        done = max(now, self._free[0]) + seconds
        heapq.heapreplace(self._free, done)
        self.spent += seconds
        return done
