"""Some files of an object that lie here without the others: what of it this node can serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.memory.buffers import FilesBuffer
from engine.memory.file_spans import FileSpan
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.source import stamp_fault


class PartCopy:
    """See ``p2pstore.holding.holdings.PartialCopy``."""

    def __init__(
        self, manifest: Manifest, numbers: Sequence[int], spans: Sequence[FileSpan], lost: Callable[[str], None]
    ) -> None:
        """The files of those ``numbers`` lie at ``spans``, with their stamps.

        ``lost`` is told, in any thread, why one of them cannot be served any more.
        """
        self.manifest = manifest
        self.verified = Bitmap(manifest.chunks)
        for number in numbers:
            self.verified.update(range(*manifest.first_chunks[number : number + 2]))
        self._files = dict(zip(numbers, spans, strict=True))
        self._lost = lost

    @property
    def spans(self) -> Sequence[FileSpan]:
        """Its files, with their stamps."""
        return tuple(self._files.values())

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(span.size for span in self._files.values())

    def fault(self) -> str:
        """What is wrong with the first of its files that is not what it was, as people read it; empty where all are."""
        for span in self._files.values():
            if span.stamp is not None and (fault := stamp_fault(span)):
                return f"{span.path}: {fault}"
        return ""

    def partial_buffer(self, servable: Callable[[int, int], bool]) -> FilesBuffer:
        """The buffer by which peers may read the ranges that ``servable(offset, length)`` allows."""
        sizes = self.manifest.columns.sizes
        spans = [self._files.get(number) or FileSpan("", size) for number, size in enumerate(sizes)]
        return FilesBuffer(
            self.manifest.digest,
            spans,
            servable=servable,
            on_changed=lambda path, detail: self._lost(f"{path}: {detail}"),
            on_unreadable=lambda path, _, detail: self._lost(f"{path}: {detail}"),
        )
