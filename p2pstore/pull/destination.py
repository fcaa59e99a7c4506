"""Where a pull puts what arrives: the interface that files and memory implement, and whatever comes beside them.

Several threads write at once, each into a sink of its own. A destination's life ends once: with ``finish`` when every
chunk is there, with ``abort`` before. From then on no sink takes a byte, whoever still holds one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from engine.memory.file_spans import FileSpan
from engine.memory.region import Region
from engine.transports.base import Sink
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.pull.tuning import Place

ABORT_SECONDS = 10.0
"""How long writes under way may take to end when a destination is finished or given up."""


class RunSink(Sink, Protocol):
    """A sink for adjacent chunks: hashes what arrives, stores it, and compares each digest.

    ``buffer`` raises ``Interrupted`` once the destination has ended; ``filled`` raises ``Mismatch`` at the first chunk
    that is not right, or ``StorageError``.
    """

    kept: int
    """Chunks, from the first, that were right."""

    def close(self) -> None:
        """Take back the room that was handed out: nobody may write to it any more. Twice is harmless."""


@runtime_checkable
class HollowSink(RunSink, Protocol):
    """A sink that can have zeros without storing them."""

    def hole(self, remaining: int) -> int:
        """Make a hole of the rest of the chunk, and hash what then lies there: how many bytes; 0 where it cannot be.

        Raises as ``filled``.
        """


class Destination(Protocol):
    """What a pull writes to."""

    @property
    def manifest(self) -> Manifest:
        """What is to be there in the end."""

    @property
    def verified(self) -> Bitmap:
        """The chunks that are there and right; whoever brings one adds it."""

    @property
    def left_out(self) -> int:
        """Bytes of chunks that are not to come at all: they stand in ``verified`` from the start."""

    @property
    def lands_in(self) -> Place:
        """Where most of the bytes go."""

    def sink(self, run: range, scratch: memoryview) -> RunSink:
        """A sink for the adjacent chunks of ``run``, which the caller closes; ``scratch`` is its thread's own buffer.

        A destination that can hold only some of what is missing may wait here until it has room. Raises
        ``Interrupted`` once it has ended, and ``StorageError``.
        """

    def place(self, run: range) -> Region | None:
        """The memory where these adjacent chunks will lie, where it is one piece; None where they go to files.

        The caller closes it, or hands it on to a channel. Raises ``Interrupted`` once the destination has ended.
        """

    def copy(self, chunk: Chunk, sink: RunSink) -> None:
        """Bring a verified chunk of this destination into ``sink``, which shares its blocks where that can be.

        Raises ``SourceChanged`` where it is not there any more, ``StorageError``, and what the sink raises.
        """

    def keep(self, run: range) -> None:
        """Remember that these are verified. Raises ``StorageError``."""

    def finish(self) -> Sequence[FileSpan]:
        """Every chunk is there: put them in place, and let go. Returns the files that they lie in, none for memory.

        Raises ``StorageError`` and what else hinders it; ``abort`` is then still to be called.
        """

    def abort(self, timeout: float = ABORT_SECONDS) -> bool:
        """Take nothing more and let go, once the writes under way have ended; wait ``timeout`` seconds for that.

        Returns whether they have: else it is let go of by the last of them. Harmless after ``finish``, and twice.
        """


class Mismatch(Exception):
    """A chunk's bytes do not match its hash. Whoever fed the sink knows whose fault that is."""

    def __init__(self, chunk: int) -> None:
        super().__init__(chunk)
        self.chunk = chunk
