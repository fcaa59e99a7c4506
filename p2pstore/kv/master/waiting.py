"""Puts that cannot be answered yet: somebody else writes the key, or room is being made. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.rpc.codes import Code
from engine.rpc.messages import ReplicateConfig
from p2pstore.kv.master.dispatch import Route
from p2pstore.kv.master.limits import MAX_WAITING, MAX_WAITING_BYTES, WAIT_S

MAX_TRIED = 500
"""Calls that are tried again in one go."""

TRY_S = 0.005
"""How long after one go the next follows."""

KEY_BYTES = 150
"""What a key of a call takes beside its characters, with its size and its result."""

PATIENT_S = 0.5
"""How often a call is tried again though no write has ended: its writer may be taken for gone by then."""


MakeRoom = Callable[[Sequence[int]], bool]
"""Makes room, a step of it; tells whether another may find more."""


class Waiting:
    """One such call: what it got so far, and which of its keys are to be asked for again."""

    __slots__ = ("_stepped", "args", "bytes", "missing", "next", "results", "route", "seen", "sequence", "to", "until")

    def __init__(self, to: Any, sequence: int, route: Route, args: tuple[Any, ...], results: list[Any]) -> None:
        self.to = to
        """The connection that called."""
        self.sequence = sequence
        self.route = route
        self.args = args
        self.results = results
        self.missing = _missing(results)
        keys = args[1] if route.many else (args[1],)
        self.bytes = sum(map(len, keys)) + KEY_BYTES * len(keys)
        """What it takes while it waits, more or less."""
        self.until = 0.0
        self.next = 0.0
        self.seen = 0
        """How many writes had ended when it was tried last."""
        self._stepped = True

    @property
    def result(self) -> Any:
        """What the call is answered with."""
        return self.results if self.route.many else self.results[0]

    @property
    def hurries(self) -> bool:
        """Whether it is to be tried again at once: room is made step by step."""
        return self._stepped and any(self.results[place] is Code.NO_SPACE for place in self.missing)

    def try_again(self, make_room: MakeRoom) -> bool:
        """Ask for what is missing, or make room for it first; tells whether nothing more is to be waited for.

        For want of room it is given up once a step has found nothing more, and room was still wanting after it.
        """
        client, keys, sizes, config, tenant = self.args
        if self.route.many:
            keys = [keys[place] for place in self.missing]
            sizes = [sizes[place] for place in self.missing]
            config = _of(config, self.missing)
        if self.hurries:
            if make_room(sizes if self.route.many else (sizes,)):
                return False
            self._stepped = False
        found = self.route.handler(client, keys, sizes, config, tenant)
        for place, result in zip(self.missing, found if self.route.many else [found], strict=True):
            self.results[place] = result
        self.missing = _missing(self.results)
        return not any(self.results[place] is Code.NOT_READY for place in self.missing)


class WaitingRoom:
    """All of them. ``done`` is called with each whose waiting is over."""

    def __init__(
        self,
        now: Callable[[], float],
        make_room: MakeRoom,
        settled: Callable[[], int],
        done: Callable[[Waiting], None],
    ) -> None:
        self._now = now
        self._make_room = make_room
        self._settled = settled
        self._done = done
        self._calls: list[Waiting] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    def takes(self, call: Waiting) -> bool:
        """Let a call wait, if that may help and there is room for it here; else its results stand."""
        full = len(self._calls) >= MAX_WAITING or self._bytes + call.bytes > MAX_WAITING_BYTES
        if not call.missing or full or call.try_again(self._make_room):
            return False
        self._bytes += call.bytes
        now = self._now()
        call.until = now + WAIT_S
        call.next = now + PATIENT_S
        call.seen = self._settled()
        self._calls.append(call)
        return True

    def left(self, to: Any) -> None:
        """A connection is gone."""
        self._calls = [call for call in self._calls if call.to is not to]
        self._bytes = sum(call.bytes for call in self._calls)

    def try_again(self) -> float | None:
        """Try those for whom something may have changed; returns in how many seconds to come again."""
        now = self._now()
        settled = self._settled()
        calls, self._calls = self._calls[:MAX_TRIED], self._calls[MAX_TRIED:]
        for call in calls:
            due = settled != call.seen or call.hurries or now >= call.next
            if (due and call.try_again(self._make_room)) or now >= call.until:
                self._bytes -= call.bytes
                self._done(call)
            else:
                if due:
                    call.next = now + PATIENT_S
                    call.seen = settled
                self._calls.append(call)
        if not self._calls:
            return None
        return 0.0 if any(call.hurries for call in self._calls[:MAX_TRIED]) else TRY_S


def _missing(results: list[Any]) -> list[int]:
    """Which of a start's results may be others a little later."""
    return [place for place, result in enumerate(results) if result is Code.NOT_READY or result is Code.NO_SPACE]


def _of(config: ReplicateConfig, places: list[int]) -> ReplicateConfig:
    """The same for some of the keys: groups are named key by key."""
    groups = config.group_ids
    if groups is None or not places or len(groups) <= places[-1]:
        return config
    return config._replace(group_ids=[groups[place] for place in places])
