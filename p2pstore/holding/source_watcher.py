"""The source watcher: looks at every registered file now and then, and has what changed given up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.errors import StorageError
from engine.files.stamps import NO_NUMBER
from engine.memory.file_spans import FileSpan
from p2pstore.holding.catalog import Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.looks import look_at_each
from p2pstore.holding.same_content import same_files
from p2pstore.objects.source import renumbered

log = logging.getLogger(__name__)

WATCH_SECONDS = 2.0
"""How often every registered file is looked at; less often where a look takes more than a twentieth of that."""

PAUSES = 20
"""Times as long as a look took there, a file system is left alone."""

LOOK_SECONDS = 30.0
"""A file system that has not answered for so long is let be until it does; the others are looked at meanwhile."""

LOOKED_AT_ONCE = 256
"""Holdings that a thread looks at before what it found is acted on."""


@dataclass
class _Look:
    """A look that is under way at all that lies on one device."""

    task: asyncio.Task[float]
    """Ends with the time at which it has."""
    began: float
    place: str
    missed: dict[str, int] | None = None
    """Where all was to be looked at once more meanwhile: what could not be read since."""


class SourceWatcher:
    """Looks at the files of holdings. It runs on the event loop; the looks are in threads."""

    def __init__(
        self,
        holdings: Holdings,
        on_changed: Callable[[Holding, str], Awaitable[None]],
        on_touched: Callable[[Holding], None],
    ) -> None:
        """``on_changed`` is called after a holding was given up because its files changed, with the reason.

        ``on_touched`` is called for a holding that has files that were touched, at each look until their stamps are
        new.
        """
        self._holdings = holdings
        self._on_changed = on_changed
        self._on_touched = on_touched
        self._to_tell: list[tuple[Holding, str]] = []  # given up, and ``on_changed`` has not returned yet
        self._looks: dict[int, _Look] = {}  # under way, by the device of the files
        self._due: dict[int, float] = {}  # when to look there again
        self._slow: dict[int, str] = {}  # what is told of devices where a look takes long

    @property
    def slow(self) -> list[str]:
        """Of each file system that keeps a look from ending, a sentence for people."""
        return list(self._slow.values())

    async def watch(self) -> None:
        """Look at every file now and then, for ever, and give up what changed.

        What changed is served no more at once, whether or not the catalog and ``on_changed`` go along; they are asked
        again at each look until they do. An error of ``on_changed`` goes up to whoever runs this, who may call it
        again.
        """
        pause = WATCH_SECONDS
        try:
            while True:
                at_once = await self._holdings.suspects.wait(pause)
                await self._holdings.forget_again()
                await self.look(everywhere=at_once)
                pause = min([WATCH_SECONDS, *(at - time.monotonic() for at in self._due.values())])
        finally:
            tasks = [each.task for each in self._looks.values()]
            self._looks.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self, *, everywhere: bool = True) -> None:
        """One look at every file; not ``everywhere``, where it is time again.

        A file system that hangs keeps its own holdings from being looked at, and a thread busy, until it answers.
        Between looks nothing may hold on to a holding, so that what it held can be freed.
        """
        await self._give_up_lost()
        unread = self._holdings.suspects.take_unread() if everywhere else {}
        now = time.monotonic()
        on_device: dict[int, list[Holding]] = {}
        for holding in self._holdings:
            if holding.spans:
                on_device.setdefault(_device(holding), []).append(holding)
        for device, there in on_device.items():
            under_way = self._looks.get(device)
            if under_way is not None and everywhere:
                under_way.missed = {**(under_way.missed or {}), **_among(there, unread)}
            elif under_way is None and (everywhere or now >= self._due.get(device, now)):
                place = str(there[0].place)
                self._looks[device] = _Look(asyncio.ensure_future(self._look_at(there, unread)), now, place)
        on_device.clear()
        waits_for = [each.task for device, each in self._looks.items() if device not in self._slow]
        if waits_for:
            await asyncio.wait(waits_for, timeout=LOOK_SECONDS)
        failed = self._ended()
        try:
            await self._tell()
        except Exception as error:  # noqa: BLE001 - raised below, unless a look failed as well
            failed.append(error)
        _raise_first(failed)

    async def _give_up_lost(self) -> None:
        """Serve no more what lies in memory that cannot be read: no look could find it well again."""
        for digest, fault in self._holdings.suspects.take_lost().items():
            for holding in self._holdings.of(digest):
                if holding.root is None:
                    log.warning("%s is withdrawn: %s", holding.name, fault)
                    self._to_tell.append((holding, fault))
                    await self._holdings.give_up(holding, fault)

    def _ended(self) -> list[BaseException]:
        """Note which looks have ended, and which have not; the errors of looks."""
        failed: list[BaseException] = []
        now = time.monotonic()
        self._due = {device: at for device, at in self._due.items() if at > now}
        for device, look in list(self._looks.items()):
            if look.task.done():
                del self._looks[device]
                error = look.task.exception()
                if error is not None:
                    failed.append(error)
                ended = look.task.result() if error is None else now
                self._due[device] = ended + max(WATCH_SECONDS, PAUSES * (ended - look.began))
                if look.missed is not None:
                    self._holdings.suspects.put_back(look.missed)
                if self._slow.pop(device, ""):
                    log.info("the look at the files of %s has ended", look.place)
            elif device not in self._slow:
                self._slow[device] = (
                    f"a look at the files of {look.place} has not ended in {LOOK_SECONDS:g} s: the file system is "
                    "slow or hangs, or files there are read again because their inode numbers changed; until it ends, "
                    "nobody sees whether what is served from there changed"
                )
                log.warning("%s", self._slow[device])
        # Some may be from before this was called again, and of file systems from which nothing is served any more.
        self._slow = {device: told for device, told in self._slow.items() if device in self._looks}
        return failed

    async def _look_at(self, there: Sequence[Holding], unread: Mapping[str, int]) -> float:
        """One look at the files of holdings on one device. Returns when it ended: others may take longer."""
        for first in range(0, len(there), LOOKED_AT_ONCE):
            batch = there[first : first + LOOKED_AT_ONCE]
            faults, touched = await asyncio.to_thread(look_at_each, batch, unread)
            for number in touched:
                self._on_touched(batch[number])
            for number, fault in faults.items():
                holding = batch[number]
                if holding in self._holdings and not await self._is_the_same(holding):
                    log.warning("%s is withdrawn: %s: %s", holding.name, holding.place, fault)
                    self._to_tell.append((holding, fault))
                    await self._holdings.give_up(holding, fault)
        return time.monotonic()

    async def _is_the_same(self, holding: Holding) -> bool:
        """Whether files whose numbers alone are others hold what they held; their numbers then count no more."""
        root, manifest = holding.root, self._holdings.manifest(holding.digest)
        if root is None or manifest is None or not await asyncio.to_thread(renumbered, holding.spans):
            return False
        spans = await asyncio.to_thread(same_files, root, manifest)
        if spans is None or holding not in self._holdings:
            return False
        log.info("%s: the inode numbers changed, and the content did not", holding.place)
        spans = tuple(FileSpan(s.path, s.size, s.stamp.unnumbered() if s.stamp else None) for s in spans)
        try:
            await self._holdings.put([(replace(holding, spans=spans), manifest)])
        except StorageError as error:
            log.warning("%s is not served any more: %s", holding.place, error)
            return False
        return True

    async def _tell(self) -> None:
        """Call ``on_changed`` for all that was given up. One that fails keeps no other from being told."""
        failed: list[BaseException] = []
        for pair in list(self._to_tell):
            try:
                await self._on_changed(*pair)
            except Exception as error:  # noqa: BLE001 - raised below, when the others have been told
                failed.append(error)
            else:
                self._to_tell.remove(pair)
        _raise_first(failed)


def _raise_first(errors: Sequence[BaseException]) -> None:
    """Only one can be raised: the log has the others."""
    for error in errors[1:]:
        log.error("the source watcher failed at something else, too", exc_info=error)
    if errors:
        raise errors[0]


def _among(holdings: Sequence[Holding], unread: Mapping[str, int]) -> dict[str, int]:
    """The paths of ``unread`` that are of these holdings."""
    if not unread:
        return {}
    paths = {span.path for holding in holdings for span in holding.spans}
    return {path: offset for path, offset in unread.items() if path in paths}


def _device(holding: Holding) -> int:
    """The file system of a holding, by its number; those whose numbers do not last are taken for one."""
    stamp = holding.spans[0].stamp
    return NO_NUMBER if stamp is None else stamp.dev
