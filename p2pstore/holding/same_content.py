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
from p2pstore.objects.source import hash_tree, scan


def same_content(
    path: Path, manifest: Manifest, cancelled: threading.Event | None = None
) -> tuple[FileSpan, ...] | None:
    """The files at ``path`` with their stamps, if they are exactly the object; None otherwise. Reads everything."""
    try:
        tree = scan(path)
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
    same = [e.chunks for e in found.files] == [e.chunks for e in manifest.files]
    return tree.files if same else None
