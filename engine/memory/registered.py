"""What ``register_memory`` takes, and what it returns."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UsageError
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
    """The buffer for memory, as ``lent.byte_view`` takes it, or for a file.

    Raises ``UsageError`` as that does, and for text, which may be meant as either; ``StorageError``.
    """
    if isinstance(source, str):
        raise UsageError(detail=f"{source!r} is text: give a file as a pathlib.Path, and memory as bytes")
    if isinstance(source, Buffer):
        return source
    if isinstance(source, os.PathLike):
        source = File(Path(source))
    if isinstance(source, File):
        return OpenFileBuffer(name, source.path, writable=writable, offset=source.offset, length=source.length)
    return MemoryBuffer(name, source, writable=writable)
