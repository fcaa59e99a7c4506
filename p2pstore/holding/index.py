"""The index of holdings, by name, content and root: one among ten thousand is found as fast as one among ten."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import TypeVar

from p2pstore.holding.catalog import Holding

K = TypeVar("K", bound=Hashable)

Key = tuple[str, str]
"""A holding's name and place: there is one of each."""


class Index:
    """Holdings, in the order in which they came. Pure, and used by one thread."""

    def __init__(self) -> None:
        self._all: dict[Key, Holding] = {}
        self._names: dict[str, dict[Key, Holding]] = {}
        self._digests: dict[str, dict[Key, Holding]] = {}
        self._roots: dict[Path | None, dict[Key, Holding]] = {}

    def __iter__(self) -> Iterator[Holding]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, holding: Holding) -> bool:
        """Whether this very holding is held, not one that took its place."""
        return self._all.get(_key(holding)) is holding

    def at_place_of(self, holding: Holding) -> Holding | None:
        """This holding, or the one that took its place, if one is held."""
        return self._all.get(_key(holding))

    @property
    def names(self) -> int:
        """How many names there are."""
        return len(self._names)

    def add(self, holding: Holding) -> None:
        """Hold it; one of the same name and place is replaced."""
        self.discard(holding)
        key = _key(holding)
        self._all[key] = holding
        self._names.setdefault(holding.name, {})[key] = holding
        self._digests.setdefault(holding.digest, {})[key] = holding
        self._roots.setdefault(holding.root, {})[key] = holding

    def discard(self, holding: Holding) -> None:
        """Hold what has this name and place no more; no error if there is none."""
        key = _key(holding)
        old = self._all.pop(key, None)
        if old is not None:
            _drop(self._names, old.name, key)
            _drop(self._digests, old.digest, key)
            _drop(self._roots, old.root, key)

    def named(self, name: str) -> list[Holding]:
        """The holdings of that name."""
        return list(self._names.get(name, {}).values())

    def of(self, digest: str) -> list[Holding]:
        """The holdings of that content."""
        return list(self._digests.get(digest, {}).values())

    def at(self, root: Path) -> Holding | None:
        """The first holding whose files lie at ``root``."""
        return next(iter(self._roots.get(root, {}).values()), None)

    def lying_at(self, root: Path) -> list[Holding]:
        """All holdings whose files lie at ``root``."""
        return list(self._roots.get(root, {}).values())

    def displaced_by(self, new: Holding) -> list[Holding]:
        """The holdings of other content whose place ``new`` takes: any at its root, or its name's in memory."""
        if new.root is None:
            there = [h for h in self.named(new.name) if h.root is None]
        else:
            there = list(self._roots.get(new.root, {}).values())
        return [h for h in there if h.digest != new.digest]


def _key(holding: Holding) -> Key:
    return holding.name, holding.place


def _drop(index: dict[K, dict[Key, Holding]], entry: K, key: Key) -> None:
    there = index[entry]
    del there[key]
    if not there:
        del index[entry]
