"""Real holdings of a tree of files, with their watcher and what it says; and a disk that is full or slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StorageError
from engine.serving.segment_server import SegmentServer
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.source_watcher import SourceWatcher
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from tests.p2pstore.samples import MIB, content, record_of, write_tree

FILES = {"a": content(MIB + 9), "b/c": content(100, 2), "d": b""}
WHOLE = b"".join(FILES.values())


class Held:
    """Holdings, and what they say changed."""

    def __init__(self, engine: SegmentServer, path: Path) -> None:
        self.engine = engine
        self.catalog = Catalog(path)
        self.changed: list[tuple[Holding, str]] = []
        self.news = asyncio.Event()
        self.holdings = Holdings(engine, self.catalog)
        self.on_touched: Callable[[Holding], None] = lambda _: None
        self.watcher = SourceWatcher(self.holdings, self.on_changed, self._touched)

    async def on_changed(self, holding: Holding, reason: str) -> None:
        self.changed.append((holding, reason))
        self.news.set()

    def _touched(self, holding: Holding) -> None:
        self.on_touched(holding)

    def read(self, manifest: Manifest) -> bytes | None:
        room = bytearray(manifest.size)
        return bytes(room) if self.holdings.serving.read(manifest.digest, 0, memoryview(room)) else None


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Held]:
    with SegmentServer() as engine:
        made = Held(engine, tmp_path / "catalog.db")
        yield made
        made.catalog.close()


def scanned(root: Path, name: str = "n", role: str = "gold") -> tuple[Holding, Manifest]:
    tree = scan(root)
    manifest = hash_tree(tree, hash_name="xxh3_128")
    return Holding(record_of(name, manifest), role, root, tree.files), manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", FILES)
    return tmp_path / "tree"


class Full:
    """Makes a catalog's file system full, and has room again."""

    def __init__(self, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = asyncio.Event()
        self._full = True
        self._change = catalog.change
        monkeypatch.setattr(catalog, "change", self.change)

    def change(self, holdings: Sequence[tuple[Holding, Manifest]], gone: Sequence[Holding]) -> None:
        if self._full and gone:
            self.refused.set()
            raise StorageError(path="catalog.db", detail="database or disk is full")
        self._change(holdings, gone)

    def make_room(self) -> None:
        self._full = False


class Blocking:
    """Makes a call block until the event loop has turned a few times; one made on the loop's own thread fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.calls = 0
        self._loop = asyncio.get_running_loop()
        self._call = getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        assert threading.current_thread() is not threading.main_thread(), "it holds up the event loop"
        self.calls += 1
        asyncio.run_coroutine_threadsafe(self._turn(), self._loop).result(60)
        return self._call(*arguments, **options)

    async def _turn(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
