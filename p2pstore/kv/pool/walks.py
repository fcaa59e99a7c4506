"""Looking at every value, some at a time, while the pool goes on.

Work that grows with the number of values is a generator: it yields after each step, of a few milliseconds, so that
whoever runs it lets others have their turn. What it returns is the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from p2pstore.kv.pool.ages import Ages, Walk
    from p2pstore.kv.pool.entries import Entry, Tenant
    from p2pstore.kv.pool.index import Index

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work in steps, and what comes of it."""

STEP_ENTRIES = 500
"""Values that one step looks at: a millisecond or two where each is removed."""

STEP_S = 0.003
"""A step of which single values may take long ends after so long."""

AT_ONCE = 100_000
"""Values of a tenant that are listed at once, which takes a millisecond; where it has more, all values are walked."""


class Everything:
    """All values that were there when it began and still are, but those that are being written."""

    def __init__(self, index: Index) -> None:
        self._set_aside = [*index.order.hard, *index.order.cold]
        self._walks: list[tuple[Ages, Walk]] = [(ages, ages.walk()) for ages in (index.order.plain, index.order.soft)]
        self.ended = False

    def step(self, count: int) -> list[Entry]:
        """About so many more; none, or no more, once it has ``ended``. Some may come twice."""
        if self._set_aside:
            some, self._set_aside = self._set_aside[:count], self._set_aside[count:]
            return some
        while self._walks:
            ages, walk = self._walks[-1]
            some = walk.step(count)
            if not walk.ended:
                return some
            ages.stop(walk)
            self._walks.pop()
        self.ended = True
        return []

    def close(self) -> None:
        """Look at no more."""
        for ages, walk in self._walks:
            ages.stop(walk)
        self._walks.clear()


def entries_of(index: Index, space: Tenant | None) -> Generator[list[Entry], None, None]:
    """The values of a tenant, or of all, a step's at a time; to be closed.

    A generator that is closed ends those that it reads from only when its frame goes, which is later in CPython 3.12.3.
    """
    if space is not None and len(space.keys) <= AT_ONCE:
        entries = list(space.keys.values())
        for first in range(0, len(entries), STEP_ENTRIES):
            yield entries[first : first + STEP_ENTRIES]
        return
    walk = Everything(index)
    try:
        while not walk.ended:
            some = walk.step(STEP_ENTRIES)
            yield some if space is None else [entry for entry in some if entry.tenant is space]
    finally:
        walk.close()


def after_each(steps: Steps[T], do: Callable[[], object]) -> Steps[T]:
    """The same, and something that is done after each."""
    with closing(steps):
        while True:
            try:
                next(steps)
            except StopIteration as end:
                do()
                result: T = end.value
                return result
            do()
            yield


def whole(steps: Steps[T], between: Callable[[], object] = lambda: None) -> T:
    """Do all steps at once; ``between`` is called after each."""
    results: list[T] = []
    for _ in _noted(steps, results):
        between()
    return results[0]


async def to_the_end(steps: Steps[T]) -> T:
    """Do all steps, with everybody's turn between."""
    results: list[T] = []
    for _ in _noted(steps, results):
        await asyncio.sleep(0)
    return results[0]


def _noted(steps: Steps[T], results: list[T]) -> Steps[None]:
    """The same as an iterator, which keeps what comes of it."""
    results.append((yield from steps))
