"""Comparing a file with the hashes that its origin tells, as it comes."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable
from typing import Protocol

from p2pstore.errors import OriginDiffers
from p2pstore.objects.oid import GIT, SHA256, oid_hasher
from p2pstore.origins.source import OriginFile

MD5 = "md5"
CRC32 = "crc32"

_PARTS = re.compile(r"(sha256|md5) of parts of ([1-9]\d*) bytes")


class Hasher(Protocol):
    """One of hashlib's, or like it."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take what comes next."""

    def hexdigest(self) -> str:
        """What has come, in hexadecimal digits."""


def kind_of_parts(kind: str, size: int) -> str:
    """The kind of a hash of the hashes of parts, each of that many bytes but the last."""
    return f"{kind} of parts of {size} bytes"


def is_of_parts(kind: str) -> bool:
    """Whether a kind of hash depends on how the file was cut."""
    return _PARTS.fullmatch(kind) is not None


class Proof:
    """Compares a file with the hashes that its origin tells, as it comes, in order."""

    def __init__(self, file: OriginFile) -> None:
        found = [(kind, digest, _hasher(kind, file.size)) for kind, digest in file.hashes]
        self._hashed = [(kind, digest, hashed) for kind, digest, hashed in found if hashed is not None]
        self._file = file

    def update(self, data: bytes | memoryview) -> None:
        """Take what comes next."""
        for _, _, hashed in self._hashed:
            hashed.update(data)

    def check(self, origin: str) -> None:
        """All of it has come. Raises ``OriginDiffers``."""
        for kind, digest, hashed in self._hashed:
            if hashed.hexdigest() != digest:
                what = self._file.path or "the file"
                raise OriginDiffers(origin=origin, detail=f"{what} has another {kind} than {digest}")


def _hasher(kind: str, size: int) -> Hasher | None:
    """What hashes a file of that size; None for a kind that is not known here."""
    if kind == GIT:
        return oid_hasher(GIT, size)
    if kind == CRC32:
        return _Crc32()
    parts = _PARTS.fullmatch(kind)
    if parts is not None:
        return _OfParts(parts[1], int(parts[2]))
    return _made(kind) if kind in {SHA256, MD5} else None


def _made(kind: str) -> hashlib._Hash:
    return hashlib.new(kind, usedforsecurity=False)


class _Crc32:
    """As S3 has it: big-endian."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _OfParts:
    """The hash of the parts' hashes, and their number, as S3 has it of what was uploaded in parts.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """

    def __init__(self, kind: str, size: int) -> None:
        self._make: Callable[[], hashlib._Hash] = lambda: _made(kind)
        self._size = size
        self._whole = self._make()
        self._parts = 0
        self._part = self._make()
        self._left = size

    def update(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        while view:
            piece, view = view[: self._left], view[self._left :]
            self._part.update(piece)
            self._left -= len(piece)
            if not self._left:
                self._end_part()

    def _end_part(self) -> None:
        self._whole.update(self._part.digest())
        self._parts += 1
        self._part, self._left = self._make(), self._size

    def hexdigest(self) -> str:
        if self._left < self._size:
            self._end_part()
        return f"{self._whole.hexdigest()}-{self._parts}"
