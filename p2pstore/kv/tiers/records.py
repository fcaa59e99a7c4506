"""The form of the log on disk: a first block that says whose records follow, and a header before each value. Pure.

A record begins at a whole block. Its header is bound to the file by a random salt, and to its place, so that no bytes
of a value are ever taken for a record, not even those of a log that was put as one.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import xxhash

BLOCK = 4096
"""Bytes; direct I/O moves whole blocks, and no file system of ours has larger ones that it insists on."""

MAGIC = b"MOONTIER"
SALT_BYTES = 16

_FIRST = struct.Struct(f"<8sI{SALT_BYTES}s")
_VERSION = 1
_SUM = struct.Struct("<Q")
_HEADER = struct.Struct("<IIQQQQ")  # mark, length of the key, size, sequence, floor, checksum of the value
_MARK = 0x444C_4156

HEADER_BYTES = _HEADER.size + _SUM.size

MAX_KEY = BLOCK - HEADER_BYTES
"""Bytes of a key: with its header it fits into one block."""


class Header(NamedTuple):
    """What is before a value. Records whose sequence is below the ``floor`` of a later one were there no more."""

    key: str
    size: int
    sequence: int
    floor: int
    checksum: int

    @property
    def span(self) -> int:
        """What the record takes of the file."""
        return span_of(len(self.key.encode()), self.size)


def first_block(salt: bytes) -> bytes:
    """What a file begins with."""
    data = _FIRST.pack(MAGIC, _VERSION, salt)
    return (data + _SUM.pack(xxhash.xxh3_64_intdigest(data))).ljust(BLOCK, b"\0")


def salt_of(block: bytes) -> bytes | None:
    """The salt of a file that begins so; None where that was not written to its end. Raises ``ValueError``.

    That is for a file of somebody else's, or of a later version.
    """
    if not block.strip(b"\0"):
        return None
    seen = block[: len(MAGIC)]
    if seen != MAGIC:
        if MAGIC.startswith(seen.rstrip(b"\0")) and not block[len(MAGIC) :].strip(b"\0"):
            return None
        raise ValueError("it is not a log of values")
    data, (total,) = block[: _FIRST.size], _SUM.unpack_from(block.ljust(BLOCK, b"\0"), _FIRST.size)
    if len(block) < BLOCK or xxhash.xxh3_64_intdigest(data) != total:
        return None
    _, version, salt = _FIRST.unpack(data)
    if version != _VERSION:
        raise ValueError("another version wrote it")
    return bytes(salt)


def span_of(key_bytes: int, size: int) -> int:
    """What a record takes of the file."""
    return -(-(HEADER_BYTES + key_bytes + size) // BLOCK) * BLOCK


def packed(header: Header, salt: bytes, offset: int) -> bytes:
    """A header and its key, for a record at ``offset``."""
    key = header.key.encode()
    data = _HEADER.pack(_MARK, len(key), header.size, header.sequence, header.floor, header.checksum)
    return data + _SUM.pack(_bound(data, key, salt, offset)) + key


def read(block: bytes, salt: bytes, offset: int) -> Header | None:
    """The header that stands at the beginning of a block of the file; None where no record begins there."""
    mark, length, size, sequence, floor, checksum = _HEADER.unpack_from(block)
    if mark != _MARK or length > MAX_KEY:
        return None
    key = block[HEADER_BYTES : HEADER_BYTES + length]
    if _SUM.unpack_from(block, _HEADER.size)[0] != _bound(block[: _HEADER.size], key, salt, offset):
        return None
    try:
        return Header(key.decode(), size, sequence, floor, checksum)
    except UnicodeDecodeError:
        return None


def _bound(data: bytes, key: bytes, salt: bytes, offset: int) -> int:
    return xxhash.xxh3_64_intdigest(salt + _SUM.pack(offset) + data + key)
