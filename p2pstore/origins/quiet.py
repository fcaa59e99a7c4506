"""What to tell whoever waits for a file of which nothing comes, and when. Pure; the clock is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from p2pstore.errors import MooncakeError, OriginUnavailable

QUIET_SECONDS = 10.0
"""Without a byte, after which that is told."""

AGAIN_SECONDS = 30.0
"""Between two words of the same."""

OTHERS_SECONDS = 5.0
"""For which it counts that another node was reading what is missing, and what was wrong with peers."""


class Quiet:
    """Of one file that is brought."""

    def __init__(self, origin: str, path: str, clock: Callable[[], float]) -> None:
        """``origin`` and ``path`` in it are for people; the latter may be empty."""
        self._origin = f"{path!r} of {origin}" if path else origin
        self._clock = clock
        self._since = clock()  # when a byte of it came, or it was begun to be read
        self._reading = 0
        self._others = self._trouble = -OTHERS_SECONDS
        self._fault = ""
        self._why = ""
        self._told = -AGAIN_SECONDS

    @property
    def seconds(self) -> float:
        """Since a byte of it came, or it was begun to be read."""
        return self._clock() - self._since

    @contextmanager
    def reading(self) -> Iterator[None]:
        """This node reads a part of it from the origin meanwhile."""
        if not self._reading and not self._why:
            self._since = self._clock()
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1

    def came(self) -> None:
        """A byte of it came."""
        self._since, self._why = self._clock(), ""

    def fault(self, fault: OriginUnavailable) -> None:
        """The origin is away, or broke off."""
        self._why = str(fault.fields.get("detail", ""))

    def others(self) -> None:
        """Another node is reading a part of it."""
        self._others = self._clock()

    def trouble(self, fault: MooncakeError) -> None:
        """Peers that should have a part of it do not answer, or none has it."""
        self._trouble, self._fault = self._clock(), str(fault)

    def words(self) -> str:
        """What is to be told now; empty for nothing."""
        now = self._clock()
        seconds = self.seconds
        if seconds < QUIET_SECONDS or now - self._told < AGAIN_SECONDS:
            return ""
        if self._reading:
            why = f" ({self._why})" if self._why else ""
            text = f"nothing has come from {self._origin} for {seconds:.0f} s{why}; still trying"
        elif now - self._others < OTHERS_SECONDS:
            text = f"another node is reading the rest of {self._origin}; nothing has come for {seconds:.0f} s"
        elif now - self._trouble < OTHERS_SECONDS:
            text = f"nothing of {self._origin} has come for {seconds:.0f} s: {self._fault}; looking again"
        else:
            return ""
        self._told = now
        return text
