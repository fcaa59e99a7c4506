"""Chunk hashes: xxh3_128 by default (finds accidents, at memory speed), blake3 where peers are not trusted."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

import xxhash

from p2pstore.errors import PackageMissing, UsageError
from p2pstore.objects.choices import DIGEST_BYTES


class Hasher(Protocol):
    """The part of a hashlib object that we use."""

    def update(self, data: memoryview, /) -> object:
        """Take more bytes."""

    def digest(self) -> bytes:
        """The digest of all bytes so far."""


def hasher(name: str) -> Callable[[], Hasher]:
    """A maker of fresh hashers. Raises ``UsageError`` for an unknown hash, or one whose package is missing."""
    if name == "xxh3_128":
        return xxhash.xxh3_128
    if name == "blake3":
        try:
            found: Callable[[], Hasher] = importlib.import_module("blake3").blake3
        except ImportError:
            package, install = "the package blake3", "mooncake-cli[blake3]"
            raise PackageMissing(what="the hash blake3", package=package, install=install) from None
        return found
    raise UsageError(detail=f"unknown hash {name!r}; known are {', '.join(DIGEST_BYTES)}")
