"""Whether what lies at a path is an object already."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from engine.memory.file_spans import FileSpan
from p2pstore.errors import (
    Interrupted,
    MooncakeError,
)
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.selection import selection_of
from p2pstore.objects.source import named_files, scan
from p2pstore.objects.tree_hash import Progress, hash_tree


def same_content(
    path: Path,
    manifest: Manifest,
    cancelled: threading.Event | None = None,
    progress: Progress | None = None,
) -> Sequence[FileSpan] | None:
    """The files at ``path`` with their stamps, if they are exactly the object; None otherwise. Reads everything.

    What a register leaves out does not count, unless the object has it.
    """
    try:
        there = manifest.columns
        tree = scan(path, selection_of(there.paths))
        if tree.kind != manifest.kind or tree.directories != manifest.directories:
            return None
        if tree.files.sizes != there.sizes or tuple(tree.paths) != tuple(there.paths):
            return None
        found = hash_tree(
            tree,
            hash_name=manifest.hash,
            chunk_size=manifest.chunk_size,
            progress=progress,
            cancelled=cancelled,
            origins=there.origins,
        )
    except Interrupted:
        raise
    except MooncakeError:
        return None
    return tree.files if _same_chunks(found, manifest) else None


def same_files(root: Path, manifest: Manifest) -> Sequence[FileSpan] | None:
    """The files of the object at ``root`` with their stamps, if they are all there and as they were; None otherwise.

    What else is there does not matter: it was left out when the object was registered, or came later.
    """
    try:
        tree = named_files(root, manifest)
        origins = manifest.columns.origins
        found = hash_tree(tree, hash_name=manifest.hash, chunk_size=manifest.chunk_size, origins=origins)
    except MooncakeError:
        return None
    return tree.files if _same_chunks(found, manifest) else None


def _same_chunks(found: Manifest, manifest: Manifest) -> bool:
    return found.columns.digests == manifest.columns.digests
