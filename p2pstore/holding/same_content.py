"""Whether what lies at a path is an object already."""

from __future__ import annotations

import threading
from pathlib import Path

from engine.memory.buffers import FileSpan
from p2pstore.errors import (
    Interrupted,
    MooncakeError,
)
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.selection import selection_of
from p2pstore.objects.source import hash_tree, named_files, scan


def same_content(
    path: Path, manifest: Manifest, cancelled: threading.Event | None = None
) -> tuple[FileSpan, ...] | None:
    """The files at ``path`` with their stamps, if they are exactly the object; None otherwise. Reads everything.

    What a register leaves out does not count, unless the object has it.
    """
    try:
        tree = scan(path, selection_of(e.path for e in manifest.files))
        shapes = [(e.path, e.size) for e in manifest.files]
        if tree.kind != manifest.kind or tree.directories != manifest.directories:
            return None
        if [(p, f.size) for p, f in zip(tree.paths, tree.files, strict=True)] != shapes:
            return None
        found = hash_tree(tree, hash_name=manifest.hash, chunk_size=manifest.chunk_size, cancelled=cancelled)
    except Interrupted:
        raise
    except MooncakeError:
        return None
    return tree.files if _same_chunks(found, manifest) else None


def same_files(root: Path, manifest: Manifest) -> tuple[FileSpan, ...] | None:
    """The files of the object at ``root`` with their stamps, if they are all there and as they were; None otherwise.

    What else is there does not matter: it was left out when the object was registered, or came later.
    """
    try:
        tree = named_files(root, manifest)
        found = hash_tree(tree, hash_name=manifest.hash, chunk_size=manifest.chunk_size)
    except MooncakeError:
        return None
    return tree.files if _same_chunks(found, manifest) else None


def _same_chunks(found: Manifest, manifest: Manifest) -> bool:
    return [e.chunks for e in found.files] == [e.chunks for e in manifest.files]
