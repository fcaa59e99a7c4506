"""What one of several processes owes the others, and they it; what becomes of that when one goes. Pure.

A chunk that another has brought *counts* when that one has answered after it was copied: only then was it surely not
overwritten, and its owner alive, while the copy was made.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2pstore.sharing.duties import Duties


class BadNews(Exception):
    """Another process says what cannot be."""


class Ledger:
    """One process's. Not thread-safe."""

    def __init__(self, duties: Duties, me: int) -> None:
        self._duties = duties
        self._me = me
        others = [process for process in range(len(duties.wanted)) if process != me]
        self.owed = {process: duties.owed(me, process) for process in others}
        """By process, what is to come from it, and does not count yet."""
        self._copying: dict[int, set[int]] = {process: set() for process in others}
        self._to_give = {process: duties.owed(process, me) for process in others}
        self._readers: dict[int, set[int]] = {}  # of chunks that lie in shared memory
        self.gone: set[int] = set()
        self.closed: set[int] = set()
        """Who reads nothing of this process any more."""

    @property
    def here(self) -> list[int]:
        """Who has not gone."""
        return [process for process in self.owed if process not in self.gone]

    def hand(self, chunk: int) -> list[int]:
        """A chunk has been brought: who is to read it. Where nobody is, its buffer is free."""
        readers = [process for process in self._duties.others(chunk) if process not in self.gone | self.closed]
        if readers:
            self._readers[chunk] = set(readers)
        return readers

    def offered(self, process: int, chunk: int) -> None:
        """Another has brought a chunk, which is now copied. Raises ``BadNews``."""
        if chunk not in self.owed.get(process, ()) or chunk in self._copying[process]:
            raise BadNews(f"chunk {chunk} was not to come")
        self._copying[process].add(chunk)

    def copied(self, process: int, chunk: int) -> bool:
        """Another has copied a chunk; whether nobody reads it any more. Raises ``BadNews``."""
        readers = self._readers.get(chunk, set())
        if process not in readers:
            raise BadNews(f"chunk {chunk} was not there to be read")
        self._to_give[process].discard(chunk)
        return self._read_no_more(process, chunk)

    def counts(self, process: int, chunk: int) -> bool:
        """Another answers for a chunk that was copied; whether it has no more to bring. Raises ``BadNews``."""
        if chunk not in self._copying.get(process, ()):
            raise BadNews(f"chunk {chunk} was not copied")
        self._copying[process].discard(chunk)
        self.owed[process].discard(chunk)
        return not self.owed[process]

    def close(self, process: int) -> None:
        """Another needs nothing more. Raises ``BadNews`` where that cannot be yet."""
        if self._to_give[process]:
            raise BadNews("it leaves what it wanted")
        self.closed.add(process)

    def leave(self, process: int) -> list[int]:
        """Another has gone: the chunks that nobody reads any more."""
        self.gone.add(process)
        return [
            chunk
            for chunk in list(self._readers)
            if process in self._readers[chunk] and self._read_no_more(process, chunk)
        ]

    def _read_no_more(self, process: int, chunk: int) -> bool:
        self._readers[chunk].discard(process)
        if self._readers[chunk]:
            return False
        del self._readers[chunk]
        return True

    @property
    def through(self) -> bool:
        """Whether all has come that will, and nobody reads anything of this process."""
        return all(not self.owed[process] and process in self.closed for process in self.here)

    @property
    def lost(self) -> set[int]:
        """The chunks that were to come from those who have gone."""
        return _union(self.owed[process] for process in self.gone)


def _union(sets: Iterable[set[int]]) -> set[int]:
    found: set[int] = set()
    for each in sets:
        found |= each
    return found
