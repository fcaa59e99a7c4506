"""Values into the pool: room is asked for, the bytes are taken there, and the put is ended or taken back.

Memory that cannot be written to is asked for anew, elsewhere. A value is there for readers only once each of its
replicas was written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import MooncakeError
from engine.rpc.codes import Code
from engine.rpc.messages import Memory, ObjectMeta, Replica, ReplicateConfig
from p2pstore.errors import UsageError
from p2pstore.kv.client import checksums
from p2pstore.kv.client.plane import DataPlane, Piece
from p2pstore.kv.client.reading import refused
from p2pstore.kv.client.reports import Reports
from p2pstore.kv.errors import KeyBusy, PoolFull, ValueNotWritten

if TYPE_CHECKING:
    from p2pstore.kv.client.master import Master

ATTEMPTS = 16
"""To get memory for a value that can be written to: a master that chooses at random may choose a dead one again."""

BUSY_SECONDS = 1.0
"""To wait for another client that is writing the same key."""

BUSY_PAUSE = 0.02
"""Seconds between two looks at it."""

Sum = Callable[[Sequence[memoryview]], int]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """A value to be put: its key, and the memory in which it lies, part by part."""

    key: str
    parts: Sequence[memoryview]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(map(len, self.parts))


@dataclass(frozen=True, slots=True)
class Stored:
    """The outcome of a put; ``new`` is false where the key has a value already, which stays."""

    new: bool


NEW = Stored(new=True)
OLD = Stored(new=False)

Outcome = Stored | MooncakeError


class Writer:
    """Writes values for one client. Thread-safe."""

    def __init__(self, master: Master, plane: DataPlane, reports: Reports, *, checksum: Sum | None) -> None:
        """``checksum`` makes what is kept with each value; None keeps nothing."""
        self._master = master
        self._plane = plane
        self._reports = reports
        self._checksum = checksum

    @property
    def sums_by_xxh3(self) -> bool:
        """Whether values are put with the checksum that can be made piece by piece."""
        return self._checksum is checksums.xxh3

    def write(self, items: Sequence[Item], config: ReplicateConfig, *, replace: bool = False) -> list[Outcome]:
        """Put values; what became of each, in their order. With ``replace`` they take the place of what is there.

        Raises ``MasterUnavailable``, ``Closed``.
        """
        outcome: list[Outcome] = [_empty(item.key) if not item.size else NEW for item in items]
        left = [place for place, item in enumerate(items) if item.size]
        configs = dict.fromkeys(left, config) if config.group_ids is None else _by_key(config, left)
        for attempt in range(ATTEMPTS):
            if not left:
                break
            together = config if attempt == 0 and len(left) == len(items) else None
            left = self._attempt(items, left, configs, together, outcome, replace=replace)
        return outcome

    def _attempt(
        self,
        items: Sequence[Item],
        places: list[int],
        configs: dict[int, ReplicateConfig],
        together: ReplicateConfig | None,
        outcome: list[Outcome],
        *,
        replace: bool,
    ) -> list[int]:
        """Put values; the places of those whose memory cannot be written to."""
        keys = [items[place].key for place in places]
        sizes = [items[place].size for place in places]
        if together is not None:
            answers = self._master.put_start(keys, sizes, together, replace=replace)
        else:
            answers = [
                self._master.put_start([key], [size], configs[place], replace=replace)[0]
                for key, size, place in zip(keys, sizes, places, strict=True)
            ]
        granted: list[tuple[int, list[Replica]]] = []
        taken: list[int] = []
        for place, answer in zip(places, answers, strict=True):
            if not isinstance(answer, Code):
                granted.append((place, answer))
            elif answer is Code.EXISTS:
                taken.append(place)
            elif answer is Code.NOT_READY:  # a master of ours, which has waited for the other writer itself
                outcome[place] = KeyBusy(key=items[place].key)
            else:
                outcome[place] = _refused(items[place].key, answer)
        again = self._fill(items, granted, configs, outcome, replace=replace)
        if taken:
            again += self._await_others(items, taken, outcome)
        return again

    def _fill(
        self,
        items: Sequence[Item],
        granted: list[tuple[int, list[Replica]]],
        configs: dict[int, ReplicateConfig],
        outcome: list[Outcome],
        *,
        replace: bool,
    ) -> list[int]:
        """Write what was granted, and end or take back each put; the places of those to be tried elsewhere."""
        left = [place for place, _ in granted]
        try:
            failed = self._take(items, granted, outcome)
            whole = [place for place in left if place not in failed]
            metas = [ObjectMeta(items[place].key, self._sum(items[place])) for place in whole]
            codes = self._master.put_end(metas, replace=replace) if metas else []
            left = list(failed)
        finally:
            # Also what was begun when this was interrupted: else nobody could put these keys for a while.
            if left:
                self._revoke([items[place].key for place in left], replace=replace)
        for place, code in zip(whole, codes, strict=True):
            outcome[place] = NEW if code is Code.OK else _refused(items[place].key, code)
        again: list[int] = []
        for place, replicas in granted:
            faults = failed.get(place)
            if faults:
                configs[place] = self._elsewhere(configs[place], len(replicas) - len(faults))
                again.append(place)
        return again

    def _take(
        self,
        items: Sequence[Item],
        granted: list[tuple[int, list[Replica]]],
        outcome: list[Outcome],
    ) -> dict[int, set[str]]:
        """Write values to all their replicas; the endpoints that failed, by place. Places outside memory fail, too."""
        failed: dict[int, set[str]] = {}
        pieces: list[Piece] = []
        owners: list[int] = []
        for place, replicas in granted:
            for replica in replicas:
                if not isinstance(replica.place, Memory):
                    detail = f"it was given a place outside memory ({type(replica.place).__name__})"
                    outcome[place] = ValueNotWritten(key=items[place].key, detail=detail)
                    failed[place] = set()
                    continue
                at = replica.place.address
                for part in filter(len, items[place].parts):
                    pieces.append(Piece(replica.place.endpoint, at, part))
                    owners.append(place)
                    at += len(part)
        for place, piece, fault in zip(owners, pieces, self._plane.write(pieces), strict=True):
            if fault is None:
                self._reports.succeeded(piece.endpoint)
                continue
            self._reports.failed(piece.endpoint, fault)
            failed.setdefault(place, set()).add(piece.endpoint)
            outcome[place] = ValueNotWritten(key=items[place].key, detail=f"{piece.endpoint}: {fault}")
        return failed

    def _elsewhere(self, config: ReplicateConfig, good: int) -> ReplicateConfig:
        """How to ask anew: for as many replicas as could be written, since a dead node may be the only other one."""
        preferred = config.preferred_segments
        if not preferred and not config.preferred_segment:
            preferred = self._reports.dead.alive()
            if self._plane.offers:
                preferred.append(self._plane.endpoint)
        return config._replace(replica_num=max(1, min(good, config.replica_num)), preferred_segments=preferred)

    def _await_others(self, items: Sequence[Item], places: list[int], outcome: list[Outcome]) -> list[int]:
        """Wait for the values of keys that others have begun to put; the places of those that were given up."""
        until = time.monotonic() + BUSY_SECONDS
        again: list[int] = []
        while True:
            answers = self._master.replicas([items[place].key for place in places])
            waiting: list[int] = []
            for place, answer in zip(places, answers, strict=True):
                if not isinstance(answer, Code):
                    outcome[place] = OLD
                elif answer is Code.NOT_READY:
                    outcome[place] = KeyBusy(key=items[place].key)
                    waiting.append(place)
                elif answer is Code.NOT_FOUND:
                    outcome[place] = KeyBusy(key=items[place].key)
                    again.append(place)
                else:
                    outcome[place] = _refused(items[place].key, answer)
            if not waiting or time.monotonic() >= until:
                return again
            time.sleep(BUSY_PAUSE)
            places = waiting

    def _revoke(self, keys: list[str], *, replace: bool) -> None:
        try:
            self._master.put_revoke(keys, replace=replace)
        except MooncakeError as error:
            log.warning("puts that failed could not be taken back, the master will give them up: %s", error)

    def _sum(self, item: Item) -> int | None:
        return None if self._checksum is None else self._checksum(item.parts)


def _by_key(config: ReplicateConfig, places: list[int]) -> dict[int, ReplicateConfig]:
    groups = list(config.group_ids or ())
    return {place: config._replace(group_ids=[groups[place]]) for place in places if place < len(groups)}


def _empty(key: str) -> MooncakeError:
    return UsageError(detail=f"the value of {key!r} is empty, and the pool keeps no empty values")


def _refused(key: str, code: Code) -> MooncakeError:
    if code is Code.NO_SPACE:
        return PoolFull(what=f"to put {key!r}", detail=code.sentence, code=int(code))
    return refused(f"to put {key!r}", code)
