"""What of a file is here while it is brought, for those who read it meanwhile; what they read is brought first."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from engine.net.within import within
from p2pstore.origins.sections import Plan, Section

RECHECK_SECONDS = 0.2
"""Before it is looked again whether somebody waits for what has no place yet."""


class Growing:
    """A section that this node reads from the origin, as far as it has come: the first bytes of a file."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is open for reading for as long as this is known."""
        self._descriptor = descriptor
        self.count = 0

    def opened(self) -> int:
        """A descriptor of one's own, to be closed."""
        return os.dup(self._descriptor)


class Coming:
    """One file that comes. On the event loop."""

    def __init__(self, way: Plan) -> None:
        self.plan = way
        self._growing: dict[str, Growing] = {}
        self._readers: dict[object, int] = {}
        self._changed = asyncio.Event()
        self.digests: dict[str, str] = {}
        """What each section is that another node had: it lies here under another name where one here is the same."""
        self.elsewhere = 0.0
        """When a section was last looked at that another node was reading, by the loop's clock; 0 if none was."""

    # Who brings it

    @contextmanager
    def growing(self, section: Section, descriptor: int) -> Iterator[Callable[[int], None]]:
        """A section is read meanwhile; whoever reads it tells how many bytes more there are."""
        one = self._growing[section.name] = Growing(descriptor)

        def grew(count: int) -> None:
            one.count += count
            self.news()

        try:
            yield grew
        finally:
            del self._growing[section.name]
            self.news()

    def next(self, waiting: deque[Section]) -> Section:
        """Which of those that wait is brought next, taken out: what somebody is about to read, and what comes then."""
        found = next(filter(self.is_urgent, waiting), None)
        if found is None and self._readers:
            first = min(self._readers.values())
            found = min((each for each in waiting if each.begin >= first), key=lambda each: each.begin, default=None)
        if found is None:
            return waiting.popleft()
        waiting.remove(found)
        return found

    def is_urgent(self, section: Section) -> bool:
        """Whether somebody waits for what a section has."""
        return any(section.begin <= at < section.end for at in self._readers.values())

    def news(self) -> None:
        """Have readers look again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # Who reads it

    def section_at(self, offset: int) -> Section:
        """The section that has a byte."""
        return self.plan.sections[offset // self.plan.sections[0].end]

    def grown(self, section: Section) -> Growing | None:
        """What this node has of a section that it is reading."""
        return self._growing.get(section.name)

    def reads(self, who: object, at: int) -> None:
        """Somebody reads on from there."""
        self._readers[who] = at

    def left(self, who: object) -> None:
        """Somebody reads no more."""
        self._readers.pop(who, None)

    async def changed(self, seconds: float) -> None:
        """Wait until there is more, for so long at most."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._changed.wait(), seconds)


class Room:
    """Places for what is done at a time, which what is urgent does not wait for."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def place(self, is_urgent: Callable[[], bool]) -> AsyncIterator[None]:
        """Wait for a place, and have it meanwhile."""
        while self._free <= 0 and not is_urgent():
            self._freed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._freed.wait(), RECHECK_SECONDS)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
            self._freed.set()
