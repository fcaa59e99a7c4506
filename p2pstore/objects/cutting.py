"""Where a file is cut into chunks: from its beginning, or, where its data begin later, from there. Pure.

A file has an *origin*: chunks begin at it and at every multiple of the chunk size after it, and what is before it is a
chunk of its own, shorter than others. It is 0 for most files. That of a safetensors file is where its tensors begin,
less whole chunks: so a header that grows moves no other chunk, and chunks of the same tensors stay the same.

What counts as a safetensors file decides about the identity of objects, so it must never change. It is a file longer
than a chunk that begins with a length of eight bytes (little-endian), and that many bytes of UTF-8 JSON: an object that
begins with ``{`` and whose entries, ``__metadata__`` left aside, are objects with ``data_offsets``, two whole numbers
each, which follow one another without a gap from 0 to the end of the file. Types and shapes do not count: there will be
new ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable

LENGTH_BYTES = 8
"""Before the header of a safetensors file, that tell its length."""

MAX_HEADER_BYTES = 100_000_000
"""The limit of safetensors."""


def chunk_count(size: int, chunk_size: int, origin: int = 0) -> int:
    """How many chunks a file of ``size`` bytes has."""
    return -(-(size - origin) // chunk_size) + (origin > 0)


def chunk_start(index: int, chunk_size: int, origin: int = 0) -> int:
    """Where a file's chunk of that number begins in it."""
    if not origin:
        return index * chunk_size
    return origin + (index - 1) * chunk_size if index else 0


def chunk_end(index: int, size: int, chunk_size: int, origin: int = 0) -> int:
    """Where it ends, in a file of ``size`` bytes."""
    return min(size, chunk_start(index + 1, chunk_size, origin))


def chunk_at(offset: int, chunk_size: int, origin: int = 0) -> int:
    """The number of the chunk in which a byte lies."""
    if not origin:
        return offset // chunk_size
    return 1 + (offset - origin) // chunk_size if offset >= origin else 0


def origin_of(read: Callable[[int, int], bytes], size: int, chunk_size: int) -> int:
    """The origin of a file of ``size`` bytes, of which ``read(offset, length)`` has some; it raises what that does."""
    if size <= chunk_size:
        return 0
    start = read(0, LENGTH_BYTES + 1)
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    begin = LENGTH_BYTES + length
    if start[LENGTH_BYTES:] != b"{" or length > MAX_HEADER_BYTES or begin >= size or not begin % chunk_size:
        return 0
    return begin % chunk_size if _tiles(read(LENGTH_BYTES, length), size - begin) else 0


def _tiles(header: bytes, size: int) -> bool:
    """Whether these are the entries of tensors that fill ``size`` bytes."""
    try:
        entries = json.loads(header.decode())
    except (ValueError, RecursionError):
        return False
    if not isinstance(entries, dict):
        return False
    ranges = []
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not isinstance(offsets, list) or [type(each) for each in offsets] != [int, int]:
            return False
        ranges.append((offsets[0], offsets[1]))
    at = 0
    for begin, end in sorted(ranges):
        if begin != at or end < begin:
            return False
        at = end
    return at == size
