"""Some chunks of an object, brought into a copy that others fill, too: a destination that wants these alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from engine.memory.file_spans import FileSpan
from engine.memory.region import Region
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.pull.destination import RunSink
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.tuning import Place


class _Noting(Bitmap):
    """A bitmap that tells of each chunk that is added."""

    __slots__ = ("_landed",)

    def __init__(self, size: int, landed: Callable[[int], None]) -> None:
        super().__init__(size, full=True)
        self._landed = landed

    def leave_out(self, chunks: Iterable[int]) -> None:
        """These are to come: clear their bits."""
        for chunk in chunks:
            self._bits[chunk] = 0
            self.count -= 1

    def add(self, index: int) -> bool:
        """See ``Bitmap.add``."""
        new = super().add(index)
        if new:
            self._landed(index)
        return new


class Window:
    """See ``p2pstore.pull.destination.Destination``. What is brought counts as the whole copy's at once."""

    def __init__(
        self, whole: FileDestination, wanted: Iterable[int], have: Have, landed: Callable[[int], None]
    ) -> None:
        """``wanted`` are chunks that the copy lacks; ``landed`` hears of each that ``have`` has. Any thread."""

        def came(chunk: int) -> None:
            have.add(chunk)
            landed(chunk)

        self._whole = whole
        self.verified: Bitmap
        bitmap = _Noting(whole.manifest.chunks, came)
        bitmap.leave_out(wanted)
        self.verified = bitmap
        self.left_out = whole.manifest.bytes_of(bitmap)

    @property
    def manifest(self) -> Manifest:
        """See ``Destination.manifest``."""
        return self._whole.manifest

    @property
    def lands_in(self) -> Place:
        """See ``Destination.lands_in``."""
        return self._whole.lands_in

    def sink(self, run: range, scratch: memoryview) -> RunSink:
        """See ``Destination.sink``."""
        return self._whole.sink(run, scratch)

    def place(self, run: range) -> Region | None:
        """See ``Destination.place``."""
        return self._whole.place(run)

    def copy(self, chunk: Chunk, sink: RunSink) -> None:
        """See ``Destination.copy``."""
        self._whole.copy(chunk, sink)

    def keep(self, run: range) -> None:
        """See ``Destination.keep``."""
        self._whole.keep(run)

    def finish(self) -> Sequence[FileSpan]:
        """See ``Destination.finish``: nothing is put in place before all of the copy is there."""
        return ()

    def abort(self, timeout: float = 0.0) -> bool:  # noqa: ARG002 - as the protocol has it
        """See ``Destination.abort``: the copy goes on."""
        return True


class Have:
    """What a copy has, written by several windows at once; any thread."""

    def __init__(self, bitmap: Bitmap) -> None:
        self.bitmap = bitmap
        self._guard = threading.Lock()

    def add(self, chunk: int) -> None:
        """A chunk is there and right."""
        with self._guard:
            self.bitmap.add(chunk)
