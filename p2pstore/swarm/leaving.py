"""What peers that take part no more may still write: nobody else is asked for it until they have let go of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Leaving:
    """The runs in flight at peers that were dropped or closed. True while there are any."""

    def __init__(self) -> None:
        self._dropped: dict[str, list[range]] = {}  # of peers of which ``Closed`` is to be heard
        self._writing: set[tuple[str, range]] = set()  # of closed peers, not yet released

    def __bool__(self) -> bool:
        return bool(self._writing) or any(self._dropped.values())

    @property
    def writing(self) -> bool:
        """Whether a peer that is closed still writes."""
        return bool(self._writing)

    def drop(self, name: str, runs: Iterable[range]) -> None:
        """A peer is dropped with these runs in flight; that it is closed comes later."""
        self._dropped.setdefault(name, []).extend(runs)

    def answered(self, name: str) -> list[range] | None:
        """What a peer that was dropped and now is closed had in flight; None where none of that name was dropped.

        Who has that name now may be another.
        """
        return self._dropped.pop(name, None)

    def closed(self, name: str, runs: Iterable[range], writing: Collection[range]) -> list[range]:
        """A closed peer had these runs in flight, and still writes some: those that others may be asked for."""
        free = []
        for run in runs:
            if run in writing:
                self._writing.add((name, run))
            else:
                free.append(run)
        return free

    def let_go(self, name: str, run: range) -> bool:
        """Whether a run was in flight at a peer that takes part no more; it is no longer."""
        if run in self._dropped.get(name, ()):
            self._dropped[name].remove(run)
            return True
        if (name, run) in self._writing:
            self._writing.remove((name, run))
            return True
        return False

    def gone(self, name: str) -> list[range]:
        """Nobody of that name writes any more: the runs that others may be asked for."""
        runs = self._dropped.pop(name, [])
        runs += [run for other, run in self._writing if other == name]
        self._writing.difference_update([(name, run) for run in runs])
        return runs
