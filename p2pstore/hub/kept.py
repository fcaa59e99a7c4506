"""Where what programs read is kept on this node."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from engine.memory.file_spans import FileSpan
from p2pstore.cluster.records import ObjectRecord
from p2pstore.errors import StorageError
from p2pstore.holding.incoming import MAX_SHOWN_NAME, SHORT_DIGEST
from p2pstore.holding.same_content import same_content
from p2pstore.objects.file_system import words
from p2pstore.objects.manifest import Manifest

MAX_PLACES = 8
"""Names that are tried for one object, where others have put something else under the first."""


def place_for(
    directory: Path | None, record: ObjectRecord, manifest: Manifest, cancelled: threading.Event
) -> tuple[Path, Sequence[FileSpan] | None]:
    """Where an object is to lie in a directory, which is made; and its files where it lies there already.

    Raises ``StorageError`` where there is no place, and ``Interrupted`` once ``cancelled`` is set.
    """
    if directory is None:
        raise StorageError(path="this node", detail="it has no directory to keep what it brings")
    stem = f"{quote(record.name, safe='')[:MAX_SHOWN_NAME]}-{manifest.digest[:SHORT_DIGEST]}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(path=directory, detail=words(error)) from None
    for path in (directory / stem, *(directory / f"{stem}-{number}" for number in range(1, MAX_PLACES))):
        if not os.path.lexists(path):
            return path, None
        spans = same_content(path, manifest, cancelled)
        if spans is not None:
            return path, spans
    raise StorageError(path=directory / stem, detail="it is not what this node put there")
