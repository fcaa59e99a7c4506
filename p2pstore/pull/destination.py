"""Where a pull puts what arrives: the interface of files and memory."""

from __future__ import annotations

from typing import Protocol

from engine.transports.base import Sink
from p2pstore.objects.manifest import Manifest


class RunSink(Sink, Protocol):
    """A sink for adjacent chunks, which counts those that were right."""

    kept: int

    def close(self) -> None:
        """Let go of files."""


class Destination(Protocol):
    """What a pull writes to."""

    manifest: Manifest

    def sink(self, run: range, scratch: memoryview) -> RunSink:
        """A sink for adjacent chunks."""

    def place(self, run: range) -> memoryview | None:
        """The memory where these adjacent chunks will lie, where it is one piece; None where they go to files."""

    def keep(self, run: range) -> None:
        """Remember that these are verified."""


class Mismatch(Exception):
    """A chunk's bytes do not match its hash. Whoever fed the sink knows whose fault that is."""

    def __init__(self, chunk: int) -> None:
        super().__init__(chunk)
        self.chunk = chunk
