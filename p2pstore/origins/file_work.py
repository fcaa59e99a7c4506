"""A file that comes, what is needed for that, who waits for it, and how they hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from p2pstore.errors import MooncakeError
from p2pstore.hub.patience import PeerPatience
from p2pstore.objects.steps import Steps
from p2pstore.objects.waiting import to_its_end
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


class Wanting(NamedTuple):
    """Somebody who waits for a file: where it is read for them, what it is there, and what tells them."""

    source: Source
    origin: str
    file: OriginFile
    told: Told


class FileWork:
    """A file that comes, for all who wait for it here: it is read for the first of them who still waits."""

    def __init__(self, wanting: Wanting, way: Plan, have: Callable[[FileWork], Coroutine[Any, Any, Path]]) -> None:
        self._wanting = [wanting]
        self._count = 0
        self.plan = way
        self.coming = Coming(way)
        self.quiet = Quiet(wanting.origin, wanting.file.path, asyncio.get_running_loop().time)
        self.peers = PeerPatience()  # sections go away when who had them has the whole file
        self.task = asyncio.create_task(have(self), name=f"bringing of {wanting.origin}")
        self.ending = False
        """Whether nobody waits for it any more."""

    @property
    def source(self) -> Source:
        """Where it is read."""
        return self._wanting[0].source

    @property
    def origin(self) -> str:
        """What that is called."""
        return self._wanting[0].origin

    @property
    def file(self) -> OriginFile:
        """What it is there."""
        return self._wanting[0].file

    def join(self, wanting: Wanting) -> None:
        """One more waits for it."""
        self._wanting.append(wanting)
        wanting.told.add(self._count)

    async def wait(self, wanting: Wanting) -> Path | None:
        """Where it lies, for one who waits for it; None where it was read for another, and that failed.

        Raises what hinders it. When the last who waits is cancelled, it ends.
        """
        try:
            found = await asyncio.shield(self.task)
        except MooncakeError:
            if self._wanting[0] is wanting:
                raise
            return None  # the other's origin may be at fault
        finally:
            if not self.task.done():
                await self._leave(wanting)
        wanting.told.all()
        return found

    async def _leave(self, wanting: Wanting) -> None:
        if len(self._wanting) > 1:
            self._wanting = [each for each in self._wanting if each is not wanting]
            return
        self.ending = True
        self.task.cancel()
        await to_its_end(asyncio.wait({self.task}))
        if not self.task.cancelled():
            self.task.exception()  # nobody hears of it any more

    async def again(self, fault: MooncakeError) -> None:
        """Pause before another look; raise a fault of peers where there was nothing else for long."""
        self.quiet.trouble(fault)
        await self.peers.again(fault)

    def came(self, count: int) -> None:
        """So many bytes more."""
        self._count += count
        for each in self._wanting:
            each.told.add(count)
        self.quiet.came()

    def note(self, text: str) -> None:
        """Something that whoever waits is to hear."""
        for each in self._wanting:
            each.told.note(text)
