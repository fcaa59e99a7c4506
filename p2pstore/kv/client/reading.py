"""Values out of the pool: which replica is read, what is done when that fails, and whether the bytes are right.

All replicas of all values of a call are read together, a round at a time: what fails goes on with its next replica. A
value that no replica gave is asked for once more, since it may lie elsewhere by then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import MooncakeError
from engine.rpc.codes import Code
from engine.rpc.disk_calls import stored_name
from engine.rpc.messages import LocalDisk, Memory, Replica, Replicas, Status
from p2pstore.kv.client import checksums
from p2pstore.kv.client.checksums import xxh3_of
from p2pstore.kv.client.disk_reading import DiskReader, Want
from p2pstore.kv.client.plane import DataPlane, Piece
from p2pstore.kv.client.replicas import in_order
from p2pstore.kv.client.reports import Reports
from p2pstore.kv.errors import KeyNotFound, MasterRefused, ValueCorrupt, ValueUnreadable

if TYPE_CHECKING:
    from p2pstore.kv.client.master import Master

LEASE_MARGIN = 0.1
"""Seconds of a lease that are not counted on: it began when the master answered, and clocks are read here."""


class Part(NamedTuple):
    """A range of a value, from ``offset`` on, and the memory that it is to come to."""

    offset: int
    view: memoryview


AT_ONCE_BYTES = 1 << 20
"""Largest value that is fetched without the bookkeeping for many: of a larger one it is no part worth speaking of."""

Room = Callable[[int, int], "list[Part] | MooncakeError"]
"""What is wanted of the value in a place of the call's keys, of so many bytes; or why it is not to be read."""

log = logging.getLogger(__name__)

_COMPLETE = Status.COMPLETE


class Counts:
    """What a client has seen, since it was made."""

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.wrong = 0
        """Replicas whose bytes were not what was put."""
        self.unverified = 0
        """Values that came without a checksum."""
        self.disk_hits = 0
        """Values that were read from a disk."""
        self.second_tries = 0
        """Replicas that were tried since the one before failed."""


class _Value:
    """A value that is being read."""

    __slots__ = (
        "corrupt",
        "detail",
        "disks",
        "expected",
        "found",
        "from_disk",
        "order",
        "parts",
        "place",
        "replicas",
        "size",
    )

    def __init__(self, place: int, found: Replicas, replicas: list[Replica], disks: list[LocalDisk], size: int) -> None:
        self.place = place
        self.found = found
        self.replicas = replicas
        self.disks = disks
        """Those that are tried where no replica in memory gave it."""
        self.from_disk = False
        self.size = size
        self.parts: list[Part] = []
        self.expected: int | None = None
        """The checksum of what is wanted."""
        self.order: list[int] = []
        self.detail = ""
        self.corrupt = False


class Reader:
    """Reads values for one client. Thread-safe."""

    def __init__(self, master: Master, plane: DataPlane, reports: Reports, *, verify: bool) -> None:
        """``verify`` says whether bytes are compared with their checksum."""
        self._master = master
        self._plane = plane
        self._reports = reports
        self._verify = verify
        self.disks = DiskReader(plane)
        self.counts = Counts()

    def read(self, keys: Sequence[str], room: Room) -> list[int | MooncakeError]:
        """Read values into what ``room`` gives for each: their sizes, or what was wrong, in the order of the keys.

        Raises ``MasterUnavailable``, ``Closed``.
        """
        began = time.monotonic()
        answers = self._master.replicas(keys)
        if len(keys) == 1 and (size := self._at_once(answers[0], room)):
            return [size]
        outcome: list[int | MooncakeError] = [0] * len(keys)
        again = self._round(keys, list(range(len(keys))), answers, began, room, outcome)
        if again:
            began = time.monotonic()
            self._round(keys, again, self._master.replicas([keys[place] for place in again]), began, room, outcome)
        return outcome

    def _at_once(self, answer: Replicas | Code, room: Room) -> int:
        """Read one value that lies in one place, and is small or in this process; 0 else, or where anything is amiss.

        A small one spends most of its time on what many of them need.
        """
        if isinstance(answer, Code) or len(answer.replicas) != 1 or answer.checksum is None or not self._verify:
            return 0
        _, place, status = answer.replicas[0]
        if status != _COMPLETE or not isinstance(place, Memory):
            return 0
        size = place.size
        here = self._plane.in_place(place.endpoint, place.address, size)
        if here is None and size > AT_ONCE_BYTES:
            return 0
        parts = room(0, size)
        if isinstance(parts, MooncakeError) or len(parts) != 1 or not is_whole(parts, size):
            return 0
        view = parts[0].view
        if here is not None:
            self._plane.copied += size
            found = checksums.copied(view, here)
        elif self._plane.read_one(place.endpoint, place.address, view):
            found = xxh3_of(view)
        else:
            return 0
        self.counts.hits += found == answer.checksum
        return size if found == answer.checksum else 0

    def _round(
        self,
        keys: Sequence[str],
        places: list[int],
        answers: Sequence[Replicas | Code],
        began: float,
        room: Room,
        outcome: list[int | MooncakeError],
    ) -> list[int]:
        """Read values that were asked for; the places of those that may come when they are asked for once more."""
        values: list[_Value] = []
        for place, answer in zip(places, answers, strict=True):
            error = self._begin(keys[place], place, answer, room, values)
            if error is not None:
                outcome[place] = error
        again: list[int] = []
        self._fetch(keys, values)
        self._fetch_from_disks(keys, values)
        for value in values:
            place = value.place
            if not value.detail:
                outcome[place] = self._kept(keys[place], value, began, again)
            else:
                # Wrong bytes, too, may be others' that lie there by now: it was removed by force, or replaced.
                kind = ValueCorrupt if value.corrupt else ValueUnreadable
                outcome[place] = kind(key=keys[place], detail=value.detail)
                again.append(place)
        return again

    def _begin(
        self, key: str, place: int, answer: Replicas | Code, room: Room, values: list[_Value]
    ) -> MooncakeError | None:
        """Prepare to read a value, or say why it cannot be."""
        if isinstance(answer, Code):
            self.counts.misses += 1
            return no_value(key, answer)
        replicas = [each for each in answer.replicas if each.status == _COMPLETE and isinstance(each.place, Memory)]
        disks = [
            each.place for each in answer.replicas if each.status == _COMPLETE and isinstance(each.place, LocalDisk)
        ]
        if not replicas and not disks:
            self.counts.misses += 1
            return none_readable(key, answer)
        self.counts.hits += 1
        value = _Value(place, answer, replicas, disks, replicas[0].place.size if replicas else disks[0].size)
        given = room(place, value.size)
        if isinstance(given, MooncakeError):
            return given
        value.parts = sorted((part for part in given if part.view), key=_offset)
        if self._verify and answer.checksum is not None and is_whole(value.parts, value.size):
            value.expected = answer.checksum
        if not replicas:
            values.append(value)
            return None
        value.order = in_order(
            [each.place.endpoint for each in replicas],  # type: ignore[union-attr]
            own=self._plane.endpoint,
            near=self._plane.near,
            dead=self._reports.dead,
        )
        values.append(value)
        return None

    def _fetch(self, keys: Sequence[str], values: list[_Value]) -> None:
        """Try the replicas in memory in their order; ``detail`` stays empty of those that came."""
        left = [value for value in values if value.replicas]
        while left:
            pieces: list[Piece] = []
            for value in left:
                place = value.replicas[value.order[0]].place
                start: int = place.address  # type: ignore[union-attr]
                for offset, view in value.parts:
                    pieces.append(Piece(place.endpoint, start + offset, view))  # type: ignore[union-attr]
            faults = iter(self._plane.read(pieces))
            unread: list[_Value] = []
            for value in left:
                fault = None
                for _ in value.parts:
                    fault = next(faults) or fault
                if not self._came(keys[value.place], value, fault) and value.order:
                    self.counts.second_tries += 1
                    unread.append(value)
            left = unread

    def _fetch_from_disks(self, keys: Sequence[str], values: list[_Value]) -> None:
        """Try the disks that have what did not come from memory; ``detail`` is empty of those that came."""
        left = [value for value in values if value.disks and (value.detail or not value.replicas)]
        while left:
            wanted = [
                Want(stored_name(self._master.tenant, keys[value.place]), disk.endpoint, disk.size, value.parts)
                for value in left
                for disk in (value.disks.pop(0),)
            ]
            unread = []
            for value, want, why in zip(left, wanted, self.disks.read(wanted), strict=True):
                if why:
                    value.detail = _and(value.detail, why)
                elif self._is_right(value):
                    value.detail = ""
                    value.from_disk = True
                    self.counts.disk_hits += 1
                    continue
                else:
                    self.counts.wrong += 1
                    log.error("%s has wrong bytes of %r on its disk", want.endpoint, keys[value.place])
                    value.detail = _and(value.detail, f"the disk of {want.endpoint}: wrong checksum")
                    value.corrupt = True
                if value.disks:
                    unread.append(value)
            left = unread

    def is_right(self, key: str, endpoint: str, size: int, checksum: int | None, parts: Sequence[Part]) -> bool:
        """Whether what came from one replica is what was put, as far as that can be told: of all of a value."""
        ordered = sorted(parts, key=_offset)
        if not self._verify or checksum is None or not is_whole(ordered, size):
            return True
        right = checksums.is_right([part.view for part in ordered], checksum)
        if not right:
            self._is_wrong(key, endpoint)
        return right

    def _is_wrong(self, key: str, endpoint: str) -> None:
        self.counts.wrong += 1
        log.error("%s has wrong bytes of %r: their checksum is not the one that was put", endpoint, key)

    def _is_right(self, value: _Value) -> bool:
        return value.expected is None or checksums.is_right([part.view for part in value.parts], value.expected)

    def _came(self, key: str, value: _Value, fault: MooncakeError | None) -> bool:
        """Whether a replica was read and is right; else it is the next one's turn."""
        endpoint: str = value.replicas[value.order.pop(0)].place.endpoint  # type: ignore[union-attr]
        if fault is not None:
            self._reports.failed(endpoint, fault)
            value.detail = _and(value.detail, f"{endpoint}: {fault}")
            return False
        self._reports.succeeded(endpoint)
        if not self._is_right(value):
            self._is_wrong(key, endpoint)
            value.detail = _and(value.detail, f"{endpoint}: wrong checksum")
            value.corrupt = True
            return False
        value.detail = ""
        return True

    def _kept(self, key: str, value: _Value, began: float, again: list[int]) -> int | MooncakeError:
        """The size of a value that came, unless its place may have been given to another meanwhile."""
        if value.expected is not None:
            return value.size
        self.counts.unverified += 1
        if value.from_disk:  # it was copied from there, for us alone
            return value.size
        if time.monotonic() - began < value.found.lease_ms / 1000 - LEASE_MARGIN:
            return value.size
        again.append(value.place)
        return refused(f"to keep {key!r} while it was read", Code.LEASE_EXPIRED)


def whole(view: memoryview) -> list[Part]:
    """All of a value, into one piece of memory."""
    return [Part(0, view)]


def _offset(part: Part) -> int:
    return part.offset


def is_whole(parts: Sequence[Part], size: int) -> bool:
    """Whether parts, in order of their offsets, are all of a value: then they can be compared."""
    at = 0
    for offset, view in parts:
        if offset != at:
            return False
        at += len(view)
    return at == size


def no_value(key: str, code: Code) -> MooncakeError:
    """What is wrong where the master has no replicas to tell."""
    return KeyNotFound(key=key) if code is Code.NOT_FOUND else refused(f"to show where {key!r} is", code)


def none_readable(key: str, found: Replicas) -> MooncakeError:
    """What is wrong where none of the replicas is one that this client can read."""
    if not any(each.status == _COMPLETE for each in found.replicas):
        return refused(f"to show where {key!r} is", Code.NOT_READY)
    kinds = sorted({type(each.place).__name__ for each in found.replicas})
    return ValueUnreadable(key=key, detail=f"it lies outside memory ({', '.join(kinds)})")


def refused(what: str, code: Code) -> MasterRefused:
    """The error for a code of the master's."""
    return MasterRefused(what=what, detail=code.sentence, code=int(code))


def _and(before: str, detail: str) -> str:
    return f"{before}; {detail}" if before else detail
