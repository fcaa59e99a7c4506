"""Parts of objects in the catalog: the files of an object that lie here without the others."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.files.stamps import FileStamp
from engine.memory.file_spans import FileSpan
from p2pstore.cluster.records import ObjectRecord, decode, encode
from p2pstore.holding.catalog import UNREADABLE, Catalog, manifest_row
from p2pstore.objects.manifest import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptPart:
    """The files of those ``numbers`` lie at ``spans``, below the ``place`` that a get was given, with their stamps."""

    record: ObjectRecord
    manifest: Manifest
    place: Path
    numbers: Sequence[int]
    spans: Sequence[FileSpan]


class PartTable:
    """One part a content. Thread-safe, as the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def keep(self, part: KeptPart) -> None:
        """Remember a part, in place of another of the same content. Raises ``StorageError``."""
        row = part.manifest.digest, encode(part.record), os.fsencode(part.place), _files(part)
        self._catalog.run(
            [
                ("INSERT OR IGNORE INTO manifests VALUES (?, ?)", [manifest_row(part.manifest)]),
                (
                    "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)",
                    [row],
                ),
            ]
        )

    def forget(self, digest: str) -> None:
        """Forget the part of a content. Raises ``StorageError``."""
        self._catalog.run([("DELETE FROM parts WHERE digest = ?", [(digest,)])], unused=[digest])

    def load(self) -> Iterator[KeptPart]:
        """All of them. What no longer parses is skipped, with a line in the log."""
        manifests = self._catalog.manifests("SELECT digest FROM parts")
        for digest, record, place, files in self._catalog.rows("SELECT digest, record, place, files FROM parts"):
            try:
                yield _part(record, place, files, manifests[digest])
            except (*UNREADABLE, LookupError):
                log.warning("the entry of a part at %r in the catalog is damaged", place)


def _files(part: KeptPart) -> bytes:
    rows = [
        [number, span.path, span.size, [s.dev, s.inode, s.size, s.mtime_ns, s.ctime_ns]]
        for number, span in zip(part.numbers, part.spans, strict=True)
        if (s := span.stamp) is not None
    ]
    return zlib.compress(json.dumps(rows).encode(), 1)


def _part(record_bytes: bytes, place: bytes, files: bytes, manifest: Manifest) -> KeptPart:
    """One row. Raises one of ``UNREADABLE``."""
    record = decode(ObjectRecord, record_bytes)
    if record is None or record.manifest != manifest.digest:
        raise ValueError("no entry of ours")
    numbers, spans = [], []
    for number, path, size, stamp in json.loads(zlib.decompress(files)):
        if manifest.columns.sizes[number] != size or number < 0:
            raise ValueError("another size than the file's")
        numbers.append(int(number))
        spans.append(FileSpan(str(path), size, FileStamp(*map(int, stamp))))
    return KeptPart(record, manifest, Path(os.fsdecode(place)), numbers, spans)
