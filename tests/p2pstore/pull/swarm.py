"""A pull of a small tree whose sources are mock transports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.net.rate import RateLimit
from engine.transports.base import Channel, PeerAddress
from engine.transports.mock import MockTransport
from p2pstore.objects.bitmap import Bitmap
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.owner import Pull
from p2pstore.pull.tuning import Tuning
from p2pstore.pull.workers import Source
from p2pstore.swarm.events import Word
from tests.p2pstore.samples import KIB, MIB, content, manifest_of, read_tree

ADDRESS = 1 << 20
CHUNK = 256 * KIB
FILES = {"a": content(3 * MIB, 1), "b/c d": content(2 * MIB + 7, 2), "empty": b"", "é": content(5, 3)}
WHOLE = b"".join(FILES[path] for path in sorted(FILES))
MANIFEST = manifest_of(FILES, CHUNK)
DEADLINE = 60.0


class Swarm:
    """A pull whose sources are mock transports, by node name; it records what the pull says."""

    def __init__(self, destination: Any, *, connections: int = 2, further: int = 0) -> None:
        self.mocks: dict[tuple[str, str], MockTransport] = {}
        self.dropped: list[tuple[str, bool]] = []
        self.notes: list[str] = []
        self.wrong: list[tuple[str, int]] = []
        self.told: set[int] = set()
        self.said: list[Word] = []
        self.early: list[range] = []
        self.had: Bitmap = destination.verified
        self.pull = Pull(
            destination,
            self.had,
            open_channel=self.open_channel,
            tuning=Tuning(connections, further or connections),
            limit=RateLimit(),
            on_progress=lambda: None,
            on_chunks=self.on_chunks,
            on_word=self.said.append,
            on_drop=lambda node, banned: self.dropped.append((node, banned)),
            on_wrong=lambda node, chunk: self.wrong.append((node, chunk)),
            note=self.notes.append,
        )

    def open_channel(self, peer: PeerAddress, transport: str) -> Channel:
        return self.mocks[peer.segment, transport].open(peer)

    def on_chunks(self, run: range) -> None:
        self.told.update(run)
        if not self.had.has_all(run):
            self.early.append(run)

    def add(
        self,
        node: str,
        script: str | Sequence[str] = "",
        *,
        mock: MockTransport | None = None,
        have: Sequence[int] | None = None,
        transports: tuple[str, ...] = ("mock",),
        segment: str = "",
        grants: bool = False,
    ) -> MockTransport:
        made = mock or MockTransport({ADDRESS: WHOLE}, script, stall_seconds=0.05)
        segment = segment or node
        for name in transports:
            self.mocks.setdefault((segment, name), made)
        bits = Bitmap(MANIFEST.chunks, full=have is None)
        bits.update(have or ())
        self.pull.add(Source(node, PeerAddress(segment, "127.0.0.1", 1), ADDRESS, transports), bits, 2, grants=grants)
        return made

    def wait(self, until: Callable[[], bool] | None = None) -> None:
        deadline = time.monotonic() + DEADLINE
        while not (until() if until else self.pull.finished):
            assert time.monotonic() < deadline, "the pull came to no end"
            time.sleep(0.005)


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[FileDestination]:
    made = FileDestination(tmp_path / "dest", MANIFEST, "object")
    yield made
    made.abort()


@pytest.fixture
def swarm(destination: FileDestination) -> Iterator[Swarm]:
    made = Swarm(destination)
    yield made
    made.pull.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("pull-")]


def requested(*mocks: MockTransport) -> int:
    return sum(length for mock in mocks for _, _, length in mock.requests)


def assert_whole(swarm: Swarm, destination: FileDestination) -> None:
    assert swarm.pull.error is None
    assert swarm.pull.finished
    swarm.pull.close()
    destination.finish()
    assert read_tree(destination.path) == FILES
    assert swarm.told == set(range(MANIFEST.chunks))
    assert swarm.early == []
