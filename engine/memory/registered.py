"""What ``register_memory`` takes, and what it returns."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.memory.buffers import Buffer, MemoryBuffer
from engine.memory.file_buffer import OpenFileBuffer

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter


@dataclass(frozen=True, slots=True)
class RegisteredMemory:
    """A registered buffer: peers name it by ``address``, which means nothing in this process."""

    address: int
    length: int
    name: str
    writable: bool


@dataclass(frozen=True, slots=True)
class File:
    """A file to register: ``length`` bytes at ``offset``, by default all of it. A writable one may grow to that."""

    path: Path | str
    offset: int = 0
    length: int | None = None


def into_buffer(source: Buffer | Exporter | File | os.PathLike[str], name: str, *, writable: bool) -> Buffer:
    """The buffer for memory (anything with the buffer protocol, NumPy and mmap included) or for a file.

    Raises ``UsageError`` for memory that is not contiguous, or read-only where it is to be written; ``StorageError``.
    """
    if isinstance(source, Buffer):
        return source
    if isinstance(source, os.PathLike):
        source = File(Path(source))
    if isinstance(source, File):
        return OpenFileBuffer(name, source.path, writable=writable, offset=source.offset, length=source.length)
    return MemoryBuffer(name, source, writable=writable)
