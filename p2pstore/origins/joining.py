"""The bytes of a section that is here: each chunk compared with its hash again before it is given on."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import SourceChanged
from engine.files.system import system
from p2pstore.errors import StorageError
from p2pstore.holding.incoming import Incoming
from p2pstore.objects.file_system import words
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Manifest
from p2pstore.origins.proof import Proof


def opened(path: Path) -> int:
    """A descriptor to read a file by. Raises ``StorageError``."""
    try:
        return system.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0)
    except OSError as error:
        raise StorageError(path=path, detail=words(error)) from None


def verified(descriptor: int, manifest: Manifest, number: int) -> memoryview:
    """A chunk of an object of one file. Raises ``StorageError`` or ``SourceChanged``."""
    chunk = manifest.chunk(number)
    try:
        data = memoryview(system.pread(descriptor, chunk.length, chunk.offset))
    except OSError as error:
        raise StorageError(path="what came from an origin", detail=words(error)) from None
    hashed = hasher(manifest.hash)()
    hashed.update(data)
    if hashed.digest() != chunk.digest:
        raise SourceChanged(path="what came from an origin", detail="it is not what was read there any more")
    return data


def append(incoming: Incoming, path: Path, manifest: Manifest, proof: Proof) -> None:
    """Add a section to the file that is made of all of them. Raises as ``verified``, and as ``Incoming.write``."""
    descriptor = opened(path)
    try:
        for number in range(manifest.chunks):
            data = verified(descriptor, manifest, number)
            incoming.write(data)
            proof.update(data)
    finally:
        os.close(descriptor)
