"""Readers and writers of messages, compiled from their types.

A master answers some tens of thousands of calls a second, and a walk over the tree of a type for every field of every
key would take most of its time. So the walk is made once for each type and each width of lengths, and what it leaves
is a function of plain Python: fields of fixed size in a row are one ``struct`` call, and so on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from engine.rpc.framing import ANSWER, MAGIC
from engine.rpc.readers import reader
from engine.rpc.types import BOOL, Expected, Type, Void, type_hash
from engine.rpc.writers import lone_answer, writer

MALFORMED = (ValueError, IndexError, OverflowError, struct.error)
"""What a reader raises of bytes that are not what their type says."""

_HAS_LITERAL = 0b100
_WIDTH_SHIFT = 3
_pack = ANSWER.pack
_HASH = struct.Struct("<I")
_WIDE = 4
"""Bytes of a length that suits whatever there is."""


class Codec:
    """Messages of one type: the hash, the literal, and what is compiled as far as it was needed."""

    def __init__(self, kind: Type) -> None:
        self.kind = kind
        self.hash = type_hash(kind.literal)
        self.read: Callable[..., Any] = self._read
        """The value of the message that ends with these bytes, and begins with them or at a second argument.

        Raises one of ``MALFORMED``.
        """
        self.answer: Callable[[int, Any], bytes] = self._first_answer
        """The frame of an answer, of its sequence number and its value."""
        self._readers: dict[int, tuple[bytes, int, Callable[[bytes, int], Any]]] = {}
        self._writers: dict[int, tuple[bytes, Callable[[Any], bytes]]] = {}
        self._known: dict[Any, bytes] = {}
        self._is_small = isinstance(kind, Expected) and (isinstance(kind.item, Void) or kind.item is BOOL)

    def _read(self, data: bytes, at: int = 0) -> Any:
        meta = data[at + 4] if data[at] & 1 else -1
        prefix, length, reader = self._readers.get(meta) or self._reader(meta)
        if not data.startswith(prefix, at):
            raise ValueError(f"another type than its hash {self.hash:#010x} says")
        return reader(data, at + length)

    def _reader(self, meta: int) -> tuple[bytes, int, Callable[[bytes, int], Any]]:
        """Without a byte of meta data there is no literal, and all lengths have one byte."""
        flags = max(meta, 0)
        if flags & ~(_HAS_LITERAL | 3 << _WIDTH_SHIFT):
            raise ValueError(f"the unknown meta data {flags:#04x}")
        prefix = _HASH.pack(self.hash) + bytes((meta,)) if meta >= 0 else _HASH.pack(self.hash - 1)
        if flags & _HAS_LITERAL:
            prefix += self.kind.literal + b"\0"
        width = 1 << (flags >> _WIDTH_SHIFT)
        made = prefix, len(prefix), reader(self.kind, width)
        self._readers[meta] = made
        if flags == _HAS_LITERAL:  # as nearly all come: what leads up to here would be a third of their time
            self.read = reader(self.kind, width, prefix, self._read)
        return made

    def write(self, value: Any) -> bytes:
        """A message with a value in it, its lengths as narrow as they can be."""
        if self._is_small:
            known = self._known.get(value)
            if known is None:
                known = self._known[value] = self._written(value, 1)
            return known
        return self._written(value, 2 if type(value) is list and len(value) > 255 else 1)

    def _first_answer(self, sequence: int, value: Any) -> bytes:
        """Find out which way there is for such a value."""
        prefix, _ = self._writers.get(1) or self._writer(1)
        quick = self._small_answer if self._is_small else lone_answer(self.kind, prefix, self._any_answer)
        self.answer = quick or self._any_answer
        return self.answer(sequence, value)

    def _small_answer(self, sequence: int, value: Any) -> bytes:
        body = self._known.get(value) or self.write(value)
        return _pack(MAGIC, sequence, len(body), 0) + body

    def _any_answer(self, sequence: int, value: Any) -> bytes:
        body = self.write(value)
        return _pack(MAGIC, sequence, len(body), 0) + body

    def in_pieces(self, value: dict[Any, Any], size: int) -> Iterator[bytes]:
        """What ``write`` makes of a map that may be a code, ``size`` items at a time: a long one takes long."""
        kind = self.kind
        assert isinstance(kind, Expected)  # noqa: S101 - for the type checker
        prefix, _ = self._writers.get(_WIDE) or self._writer(_WIDE)
        yield prefix + b"\x01" + len(value).to_bytes(_WIDE, "little")
        write = writer(kind.item, _WIDE)
        items = iter(value.items())
        while piece := dict(islice(items, size)):
            yield write(piece)[_WIDE:]

    def _written(self, value: Any, width: int) -> bytes:
        while True:
            prefix, writer = self._writers.get(width) or self._writer(width)
            try:
                return prefix + writer(value)
            except (struct.error, IndexError):
                if width == 8:
                    raise
                width *= 2

    def _writer(self, width: int) -> tuple[bytes, Callable[[Any], bytes]]:
        meta = _HAS_LITERAL | (width.bit_length() - 1) << _WIDTH_SHIFT
        prefix = _HASH.pack(self.hash) + bytes((meta,)) + self.kind.literal + b"\0"
        made = self._writers[width] = prefix, writer(self.kind, width)
        return made
