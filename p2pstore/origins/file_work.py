"""A file that comes, what is needed for that, and how whoever waits hears of it."""

from __future__ import annotations

import asyncio

from p2pstore.errors import MooncakeError
from p2pstore.hub.patience import PeerPatience
from p2pstore.objects.steps import Steps
from p2pstore.origins.coming import Coming
from p2pstore.origins.quiet import Quiet
from p2pstore.origins.sections import Plan
from p2pstore.origins.source import OriginFile, Source


class Told:
    """Tells how much of a file has come: never more than it has."""

    def __init__(self, steps: Steps, size: int) -> None:
        self._steps = steps
        self._left = size

    def add(self, count: int) -> None:
        """So many bytes more."""
        count = min(count, self._left)
        self._left -= count
        self._steps.add(count)

    def all(self) -> None:
        """It is here, whoever brought it."""
        self.add(self._left)

    def note(self, text: str) -> None:
        """Something that whoever waits is to hear."""
        self._steps.note(text)


class FileWork:
    """A file that comes, and what is needed for that."""

    def __init__(self, source: Source, origin: str, file: OriginFile, way: Plan, told: Told) -> None:
        self.source = source
        self.origin = origin
        self.file = file
        self.plan = way
        self.told = told
        self.coming = Coming(way)
        self.quiet = Quiet(origin, file.path, asyncio.get_running_loop().time)
        self.peers = PeerPatience()  # sections go away when who had them has the whole file

    async def again(self, fault: MooncakeError) -> None:
        """Pause before another look; raise a fault of peers where there was nothing else for long."""
        self.quiet.trouble(fault)
        await self.peers.again(fault)

    def came(self, count: int) -> None:
        """So many bytes more."""
        self.told.add(count)
        self.quiet.came()
