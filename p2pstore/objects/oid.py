"""What git and Git LFS call a file by its content. Pure.

Source: git-hash-object(1), and https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
"""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

GIT = "git"
"""SHA-1 of ``blob``, the size, and the bytes."""

SHA256 = "sha256"
"""As Git LFS has it."""

DIGITS = {GIT: 40, SHA256: 64}
"""Hexadecimal digits of each way."""


class OidHasher(Protocol):
    """One of hashlib's."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take what comes next."""

    def hexdigest(self) -> str:
        """The name, in hexadecimal digits."""


def oid_hasher(way: str, size: int) -> OidHasher:
    """What hashes a file of that size in one of the two ways."""
    if way == SHA256:
        return hashlib.sha256()
    hashed = hashlib.sha1(usedforsecurity=False)
    hashed.update(b"blob %d\0" % size)
    return hashed


def git_oid(data: bytes) -> str:
    """What git calls these bytes."""
    hashed = oid_hasher(GIT, len(data))
    hashed.update(data)
    return hashed.hexdigest()


def is_oid(text: object, way: str) -> bool:
    """Whether a text is a name of that way."""
    return isinstance(text, str) and bool(re.fullmatch(f"[0-9a-f]{{{DIGITS[way]}}}", text))
