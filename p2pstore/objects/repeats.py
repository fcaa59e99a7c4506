"""What of an object need not be moved: chunks of zeros, and those that equal an earlier one. Pure.

A digest says it, not the file system: SEEK_HOLE and its like have lied about holes, and a preallocated file has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Manifest

MIN_BYTES = 64 * 1024
"""A shorter chunk costs less to move along with its neighbours than to treat by itself."""

BLOCK = 4096
"""Preallocated and sparse files end at a multiple of it, mostly: other ends are tried where zeros stand before them."""

ZEROS = memoryview(bytes(256 * 1024))
"""What is hashed, and written where no hole can be made."""


@dataclass(frozen=True)
class Repeats:
    """``zeros`` are chunks of zeros, in order; ``firsts`` tells of later chunks which earlier one each equals."""

    zeros: list[int] = field(default_factory=list)
    firsts: dict[int, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.zeros or self.firsts)

    def __contains__(self, chunk: int) -> bool:
        return chunk in self.firsts

    def planned(self, had: Bitmap) -> Bitmap:
        """``had``, and what is not to be asked of anybody: chunks that will be copied from the first of their like."""
        bitmap = Bitmap(len(had))
        bitmap.update(had)
        bitmap.update(self.firsts)
        return bitmap


def repeats_of(manifest: Manifest) -> Repeats:
    """The repeats of an object. It takes a look at every chunk of at least ``MIN_BYTES``."""
    found = Repeats()
    if max(manifest.columns.sizes, default=0) < MIN_BYTES:
        return found
    first: dict[tuple[bytes, int], int] = {}
    before = -1
    begins = set(manifest.first_chunks)
    for number, (digest, length) in enumerate(zip(manifest.columns.all_digests(), manifest.lengths, strict=True)):
        if length < MIN_BYTES:
            continue
        continues = before == number - 1 and number not in begins
        if (length % BLOCK == 0 or continues) and digest == zero_digest(manifest.hash, length):
            found.zeros.append(number)
            before = number
            continue
        known = first.setdefault((digest, length), number)
        if known != number:
            found.firsts[number] = known
    return found


@lru_cache(maxsize=256)
def zero_digest(hash_name: str, length: int) -> bytes:
    """The digest of so many zeros."""
    hashed = hasher(hash_name)()
    for at in range(0, length, len(ZEROS)):
        hashed.update(ZEROS[: min(len(ZEROS), length - at)])
    return hashed.digest()
