"""Where each connection of a server stands: with whom, since when, and until when. Pure: no sockets, no clock.

A connection is either *parked*, which costs a descriptor and no thread, or it is somebody's: a worker's, or the upload
queue's. Whoever takes it must be the only one, so each change is made here, under the server's lock::

    add ──> IDLE ──ready──> SERVED ──wait───> QUEUED
                 <──park───  │  │  <──admit──
                             │  │
                      refuse │  │ pause
                             v  v
    DRAINING <──park── REFUSED  PAUSED ──ready──> RESUMED ──answer──> SERVED
             ──ready─>                 <──pause──

    close, from each of them: CLOSED

``CHANGES`` is the same as a table. What it does not list cannot happen, and raises ``KeyError``; a connection that is
closed stays closed, whatever others still do with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final, Generic, TypeVar


class Stage(IntEnum):
    """Where a connection stands."""

    IDLE = 0
    """Parked between requests."""
    SERVED = 1
    """With the workers: one has it, or will have it."""
    QUEUED = 2
    """Its request waits for an upload slot; nobody else touches it."""
    PAUSED = 3
    """Parked in the middle of a request, until its peer takes (or sends) more."""
    RESUMED = 4
    """With the workers again, in the middle of the request in which it paused."""
    REFUSED = 5
    """With the workers, which throw away what it still sends."""
    DRAINING = 6
    """Parked until there is more to throw away, or its peer closes."""
    CLOSED = 7
    """Gone."""


class Change(IntEnum):
    """What happens to a connection."""

    READY = 0
    """Its socket can be read, or written where that is waited for."""
    PARK = 1
    """Its peer has sent nothing more."""
    PAUSE = 2
    """Its peer takes (or sends) nothing, or others wait, in the middle of a request."""
    WAIT = 3
    """Its request needs an upload slot, and asks for one."""
    ADMIT = 4
    """Its request got the slot."""
    ANSWER = 5
    """Its request is done."""
    REFUSE = 6
    """Its request was refused, and it has been told."""
    CLOSE = 7
    """It is given up."""


CHANGES: Final[Mapping[Stage, Mapping[Change, Stage]]] = {
    Stage.IDLE: {Change.READY: Stage.SERVED, Change.CLOSE: Stage.CLOSED},
    Stage.SERVED: {
        Change.PARK: Stage.IDLE,
        Change.PAUSE: Stage.PAUSED,
        Change.WAIT: Stage.QUEUED,
        Change.ANSWER: Stage.SERVED,
        Change.REFUSE: Stage.REFUSED,
        Change.CLOSE: Stage.CLOSED,
    },
    Stage.QUEUED: {Change.ADMIT: Stage.SERVED, Change.CLOSE: Stage.CLOSED},
    Stage.PAUSED: {Change.READY: Stage.RESUMED, Change.CLOSE: Stage.CLOSED},
    Stage.RESUMED: {Change.PAUSE: Stage.PAUSED, Change.ANSWER: Stage.SERVED, Change.CLOSE: Stage.CLOSED},
    Stage.REFUSED: {Change.PARK: Stage.DRAINING, Change.CLOSE: Stage.CLOSED},
    Stage.DRAINING: {Change.READY: Stage.REFUSED, Change.CLOSE: Stage.CLOSED},
    Stage.CLOSED: dict.fromkeys(Change, Stage.CLOSED),
}
"""Where each change leads, from each stage."""

PARKED: Final = frozenset({Stage.IDLE, Stage.PAUSED, Stage.DRAINING})
"""The stages in which the watching thread may hand a connection to the workers, or drop it."""

TIMED: Final = frozenset({Stage.PAUSED, Stage.RESUMED, Stage.REFUSED, Stage.DRAINING})
"""The stages in which a connection has a deadline, and somebody must look after it from time to time."""


class Life:
    """What ``Connections`` knows of one connection."""

    __slots__ = ("deadline", "fd", "known", "stage")

    def __init__(self, fd: int, *, known: bool = True) -> None:
        """``fd`` is its descriptor, by which it is found. One that is not ``known`` has yet to show the key."""
        self.fd = fd
        self.known = known
        self.stage = Stage.CLOSED
        self.deadline = math.inf
        """In a timed stage, the time after which it is overdue; whoever has the connection moves it on."""


C = TypeVar("C", bound=Life)


class Connections(Generic[C]):
    """The connections of one server. Its user holds a lock around each call, except ``len``."""

    def __init__(self) -> None:
        self._all: dict[int, C] = {}
        self._parked: dict[int, C] = {}  # the one that was parked first comes first
        self._timed: dict[int, C] = {}
        self._strangers: dict[int, C] = {}

    def __len__(self) -> int:
        """Those that are not closed."""
        return len(self._all)

    def __iter__(self) -> Iterator[C]:
        """Those that are not closed, in the order in which they came; from a copy."""
        return iter(list(self._all.values()))

    @property
    def timed(self) -> list[C]:
        """Those that have a deadline."""
        return list(self._timed.values())

    @property
    def strangers(self) -> int:
        """How many are not known."""
        return len(self._strangers)

    def add(self, connection: C) -> None:
        """A new one, which is parked."""
        connection.stage = Stage.IDLE
        if not connection.known:
            self._strangers[connection.fd] = connection
        self._all[connection.fd] = self._parked[connection.fd] = connection

    def know(self, connection: C) -> None:
        """It has shown the key."""
        connection.known = True
        self._strangers.pop(connection.fd, None)

    def change(self, connection: C, change: Change) -> bool:
        """Something happened to it; whether it is the first of those with a deadline, so that somebody must look.

        Raises ``KeyError`` for what cannot happen.
        """
        before, fd = connection.stage, connection.fd
        after = CHANGES[before][change]
        if after is before:
            return False
        connection.stage = after
        if before in PARKED:
            del self._parked[fd]
        elif after in PARKED:
            self._parked[fd] = connection
        if after is Stage.CLOSED:
            del self._all[fd]
            self._timed.pop(fd, None)
            self._strangers.pop(fd, None)
        elif after not in TIMED:
            self._timed.pop(fd, None)
        elif fd not in self._timed:
            self._timed[fd] = connection
            return len(self._timed) == 1
        return False

    def ready(self, fd: int) -> C | None:
        """The parked connection of a descriptor, which is the workers' now; None where that is not parked."""
        connection = self._parked.get(fd)
        if connection is not None:
            self.change(connection, Change.READY)
        return connection

    def evict(self, *, stranger: bool = False) -> C | None:
        """The connection that has been parked longest, closed; None where none is parked.

        Strangers go before those who are known, and where a ``stranger`` is asked for nobody else does.
        """
        connection = next((each for fd, each in self._strangers.items() if fd in self._parked), None)
        if connection is None and not stranger:
            connection = next(iter(self._parked.values()), None)
        if connection is not None:
            self.change(connection, Change.CLOSE)
        return connection

    def overdue(self, now: float) -> list[C]:
        """Those parked ones whose deadline has passed, closed. What a worker has is the worker's to give up."""
        late = [each for fd, each in self._timed.items() if each.deadline < now and fd in self._parked]
        for connection in late:
            self.change(connection, Change.CLOSE)
        return late
