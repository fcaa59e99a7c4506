"""Looks at the files of holdings: which to look at first, and what a look finds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from engine.net.within import within
from p2pstore.holding.catalog import Holding
from p2pstore.objects.source import changed, look, reading_fault

log = logging.getLogger(__name__)

MAX_UNREAD = 10_000
"""Paths that could not be read which are remembered until the next look."""


class Suspects:
    """What the engine could not send, and why there is to be a look at once. Told of in any thread."""

    def __init__(self) -> None:
        """Made on the event loop of whoever looks."""
        self._loop = asyncio.get_running_loop()
        self._there = asyncio.Event()
        self._unread: dict[str, int] = {}  # paths that could not be read, and at which offset
        self._lost: dict[str, str] = {}  # contents in memory that cannot be read any more, and why

    def changed(self, path: str, detail: str) -> None:
        """The engine refused to send a changed file. Any thread."""
        log.info("%s: %s", path, detail)
        self._loop.call_soon_threadsafe(self._there.set)

    def unreadable(self, path: str, offset: int, detail: str) -> None:
        """The engine could not read a file: the look is to try to read there. Any thread."""
        if len(self._unread) < MAX_UNREAD:
            self._unread[path] = offset
        self.changed(path, detail)

    def lost(self, digest: str, detail: str) -> None:
        """Memory of a GPU that has this content cannot be read any more. Any thread."""
        self._lost[digest] = detail
        self.changed("memory", detail)

    async def wait(self, seconds: float) -> bool:
        """Wait until there are any, for so long at most; whether there are."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._there.wait(), seconds)
        there = self._there.is_set()
        self._there.clear()
        return there

    def put_back(self, unread: Mapping[str, int]) -> None:
        """These paths have not been looked at after all: there is to be a look at once. The event loop's thread."""
        for path, offset in unread.items():
            self._unread.setdefault(path, offset)
        self._there.set()

    def take_lost(self) -> dict[str, str]:
        """The contents whose memory was lost since the last call, and why."""
        lost, self._lost = self._lost, {}
        return lost

    def take_unread(self) -> dict[str, int]:
        """The paths that could not be read since the last call, and where."""
        unread, self._unread = self._unread, {}
        return unread


def look_at_each(
    holdings: Sequence[Holding], unread: Mapping[str, int] = MappingProxyType({})
) -> tuple[dict[int, str], list[int]]:
    """What is wrong with the files of holdings, by the number of each; and which have files that were touched.

    ``unread`` are paths that could not be read, and where: what still cannot be is at fault, too.
    """
    faults: dict[int, str] = {}
    touched: list[int] = []
    for number, holding in enumerate(holdings):
        fault, was_touched = look_at(holding, unread)
        if fault:
            faults[number] = fault
        elif was_touched:
            touched.append(number)
    return faults, touched


def look_at(holding: Holding, unread: Mapping[str, int] = MappingProxyType({})) -> tuple[str, bool]:
    """How a holding's files differ from their stamps, empty when they do not; and whether one was touched."""
    spans = holding.spans
    touched = False
    for number in changed(spans):
        fault, was_touched = look(spans[number])
        if fault:
            return f"{spans[number].path}: {fault}", False
        touched |= was_touched
    if unread:
        for span in spans:
            fault = reading_fault(span.path, unread[span.path]) if span.path in unread else ""
            if fault:
                return f"{span.path}: {fault}", False
    return "", touched
