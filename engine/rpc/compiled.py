"""Readers and writers of messages, compiled from their types.

A master answers some tens of thousands of calls a second, and a walk over the tree of a type for every field of every
key would take most of its time. So the walk is made once for each type and each width of lengths, and what it leaves
is a function of plain Python: fields of fixed size in a row are one ``struct`` call, and so on.

A reader does not compare each length with what is left. A slice past the end is short, and what follows it is an
``IndexError``, a ``struct.error``, or an end that is not the end of the message; nothing is made ahead of its bytes,
except where the count is compared first. So what is read takes memory in proportion to the message, whatever it says.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, cast

from engine.rpc.codes import Code
from engine.rpc.types import (
    BOOL,
    Expected,
    Identity,
    Map,
    Optional,
    Scalar,
    String,
    Struct,
    Type,
    Variant,
    Vector,
    Void,
    type_hash,
)

MALFORMED = (ValueError, IndexError, OverflowError, struct.error)
"""What a reader raises of bytes that are not what their type says."""

WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""How wide all lengths of one message may be, bytes, and ``struct``'s code for it."""

_HAS_LITERAL = 0b100
_WIDTH_SHIFT = 3
_HASH = struct.Struct("<I")
_INDENT = "    "
_ONE_BYTE = [bytes((number,)) for number in range(256)]
_DONE = {Code.OK: b"\x01"}.get
_EXISTS = {True: b"\x01\x01", False: b"\x01\x00"}.get
"""The commonest results, of which a batch has many: nothing, and whether a key exists."""


class Codec:
    """Messages of one type: the hash, the literal, and what is compiled as far as it was needed."""

    def __init__(self, kind: Type) -> None:
        self.kind = kind
        self.hash = type_hash(kind.literal)
        self._readers: dict[int, tuple[bytes, int, Callable[[bytes, int], Any]]] = {}
        self._writers: dict[int, tuple[bytes, Callable[[Any], bytes]]] = {}
        self._known: dict[Any, bytes] = {}
        self._is_small = isinstance(kind, Expected) and (isinstance(kind.item, Void) or kind.item is BOOL)

    def read(self, body: bytes) -> Any:
        """The value of a message. Raises one of ``MALFORMED``."""
        meta = body[4] if body[0] & 1 else -1
        prefix, start, reader = self._readers.get(meta) or self._reader(meta)
        if not body.startswith(prefix):
            raise ValueError(f"another type than its hash {self.hash:#010x} says")
        return reader(body, start)

    def _reader(self, meta: int) -> tuple[bytes, int, Callable[[bytes, int], Any]]:
        """Without a byte of meta data there is no literal, and all lengths have one byte."""
        flags = max(meta, 0)
        if flags & ~(_HAS_LITERAL | 3 << _WIDTH_SHIFT):
            raise ValueError(f"the unknown meta data {flags:#04x}")
        prefix = _HASH.pack(self.hash) + bytes((meta,)) if meta >= 0 else _HASH.pack(self.hash - 1)
        if flags & _HAS_LITERAL:
            prefix += self.kind.literal + b"\0"
        made = prefix, len(prefix), reader(self.kind, 1 << (flags >> _WIDTH_SHIFT))
        self._readers[meta] = made
        return made

    def write(self, value: Any) -> bytes:
        """A message with a value in it, its lengths as narrow as they can be."""
        if self._is_small:
            known = self._known.get(value)
            if known is None:
                known = self._known[value] = self._written(value, 1)
            return known
        return self._written(value, 2 if type(value) is list and len(value) > 255 else 1)

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


class _Lines:
    """The body of a function that grows; what is of fixed size waits until something else must be read or written."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.code = WIDTHS[width]
        self.names: dict[str, Any] = {"Code": Code, "code_of": Code.of, "new": tuple.__new__, "ONE": _ONE_BYTE}
        self._lines: list[str] = []
        self._depth = 1
        self._count = 0
        self._pending: list[tuple[str, str]] = []

    def add(self, *lines: str) -> None:
        self._lines += [_INDENT * self._depth + line for line in lines]

    def text(self, name: str, quick: str, other: str) -> None:
        """A name for text or its bytes; the error handler, which few need, makes it take twice the time."""
        self.add("try:", f"{_INDENT}{name} = {quick}", "except UnicodeError:", f"{_INDENT}{name} = {other}")

    def open(self, line: str) -> None:
        self.add(line)
        self._depth += 1

    def close(self) -> None:
        self._depth -= 1

    def name(self, value: Any = None, stem: str = "v") -> str:
        """A new name, of ``value`` unless that is None."""
        self._count += 1
        name = f"{stem}{self._count}"
        if value is not None:
            self.names[name] = value
        return name

    def wait(self, code: str, what: str) -> None:
        self._pending.append((code, what))

    def taken(self) -> tuple[str, list[str]]:
        codes = "".join(code for code, _ in self._pending)
        what = [each for _, each in self._pending]
        self._pending = []
        return codes, what

    def function(self, head: str) -> Callable[..., Any]:
        source = "\n".join((head, *self._lines))
        exec(source, self.names)  # noqa: S102 - made of the types alone, never of what came from outside
        made: Callable[..., Any] = self.names["made"]
        return made


def reader(kind: Type, width: int) -> Callable[[bytes, int], Any]:
    """A function of a message and of where its value begins. It raises one of ``MALFORMED``."""
    lines = _Lines(width)
    value = _read(kind, lines)
    _flush_read(lines)
    lines.add(f"value = {value}")
    lines.add("if p != len(b):", _INDENT + "raise ValueError('a length that is not true')")
    lines.add("return value")
    return lines.function("def made(b, p):")


def _flush_read(lines: _Lines) -> None:
    codes, targets = lines.taken()
    if not targets:
        return
    if codes == "B":
        lines.add(f"{targets[0]} = b[p]", "p += 1")
        return
    packer = struct.Struct("<" + codes)
    lines.add(f"{', '.join(targets)}, = {lines.name(packer.unpack_from, 'u')}(b, p)", f"p += {packer.size}")


def _read(kind: Type, lines: _Lines) -> str:
    """An expression of the value; it is good once what waits is flushed, and to be used once."""
    if isinstance(kind, Scalar):
        value = lines.name()
        lines.wait(kind.code, value)
        return kind.read.format(value)
    if isinstance(kind, Identity):
        value = lines.name()
        lines.wait("16s", value)
        return value
    if isinstance(kind, Struct):
        return _read_struct(kind, lines)
    first = lines.name(stem="n")
    lines.wait(lines.code if isinstance(kind, String | Vector | Map) else "B", first)
    _flush_read(lines)
    value = lines.name()
    if isinstance(kind, String):
        lines.add(f"q = p + {first}")
        lines.text(value, "b[p:q].decode()", "b[p:q].decode('utf-8', 'surrogateescape')")
        lines.add("p = q")
        return f"{lines.name(kind.read)}({value})" if kind.read else value
    if isinstance(kind, Vector):
        _read_vector(kind, lines, first, value)
    elif isinstance(kind, Map):
        lines.add(f"{value} = {{}}")
        lines.open(f"for _ in range({first}):")
        key, item = _read(kind.key, lines), _read(kind.value, lines)
        _flush_read(lines)
        lines.add(f"{value}[{key}] = {item}")
        lines.close()
    elif isinstance(kind, Optional):
        _read_choice(lines, first, value, [(f"if {first}:", kind.item)], "None")
    elif isinstance(kind, Expected):
        code = lines.name(struct.Struct("<i").unpack_from, "u")
        lines.open(f"if {first}:")
        lines.add(f"{value} = {_read_void(kind.item, lines)}")
        lines.close()
        lines.open("else:")
        lines.add(f"{value} = code_of({code}(b, p)[0])", "p += 4")
        lines.close()
    else:
        items = cast("Variant", kind).items
        heads = [f"{'el' if number else ''}if {first} == {number}:" for number in range(len(items))]
        _read_choice(lines, first, value, list(zip(heads, items, strict=True)), "")
    return value


def _read_void(kind: Type, lines: _Lines) -> str:
    if isinstance(kind, Void):
        return "Code.OK"
    value = _read(kind, lines)
    _flush_read(lines)
    return value


def _read_choice(lines: _Lines, first: str, value: str, heads: list[tuple[str, Any]], otherwise: str) -> None:
    for head, kind in heads:
        lines.open(head)
        lines.add(f"{value} = {_read_void(kind, lines)}")
        lines.close()
    lines.open("else:")
    lines.add(f"{value} = {otherwise}" if otherwise else f"raise ValueError(f'no variant {{{first}}}')")
    lines.close()


def _read_struct(kind: Struct, lines: _Lines) -> str:
    found = {name: _read(field, lines) for name, field in kind.fields}
    parts = [found.get(name) or lines.name([kind.defaults[name]], "d") + "[0]" for name in kind.names]
    made = "(" + "".join(f"{part}, " for part in parts) + ")"
    return made if kind.make is tuple else f"new({lines.name(kind.make, 'c')}, {made})"


def _read_vector(kind: Vector, lines: _Lines, count: str, value: str) -> None:
    item = kind.item
    if isinstance(item, Scalar) and item.read == "{}":
        size = struct.calcsize("<" + item.code)
        lines.names["unpack_from"] = struct.unpack_from
        lines.add(
            f"q = p + {size} * {count}", "if q > len(b):", _INDENT + "raise ValueError('a count that is not true')"
        )
        lines.add(f"{value} = list(unpack_from(f'<{{{count}}}{item.code}', b, p))", "p = q")
        return
    lines.add(f"{value} = []")
    add = lines.name(stem="a")
    lines.add(f"{add} = {value}.append")
    if isinstance(item, String):
        lines.add("text = b.decode('latin-1')")
    lines.open(f"for _ in range({count}):")
    if isinstance(item, String) and not item.read and lines.width <= 2:
        # As Latin-1 a message is text of the same length, and a slice of text that is ASCII is what it would decode to.
        length = "b[p]" if lines.width == 1 else "(b[p] | b[p + 1] << 8)"
        lines.add(f"q = p + {lines.width} + {length}", f"s = text[p + {lines.width}:q]")
        lines.open("if not s.isascii():")
        lines.text("s", "s.encode('latin-1').decode()", "s.encode('latin-1').decode('utf-8', 'surrogateescape')")
        lines.close()
        lines.add(f"{add}(s)", "p = q")
    else:
        each = _read(item, lines)
        _flush_read(lines)
        lines.add(f"{add}({each})")
    lines.close()


def writer(kind: Type, width: int) -> Callable[[Any], bytes]:
    """A function of a value that makes the bytes behind the literal; ``struct.error``, ``IndexError`` if too narrow."""
    lines = _Lines(width)
    lines.add("parts = []", "w = parts.append")
    _write(kind, "value", lines)
    _flush_write(lines)
    lines.add("return b''.join(parts)")
    return lines.function("def made(value):")


def _flush_write(lines: _Lines) -> None:
    codes, values = lines.taken()
    if not values:
        return
    packer = struct.Struct("<" + codes)
    if all(value.isdecimal() for value in values):
        lines.add(f"w({packer.pack(*map(int, values))!r})")
    else:
        lines.add(f"w({lines.name(packer.pack, 'k')}({', '.join(values)}))")


def _write(kind: Type, value: str, lines: _Lines) -> None:
    """``value`` is an expression that is used once, or the name of a variable."""
    if isinstance(kind, Scalar):
        lines.wait(kind.code, kind.write.format(value))
    elif isinstance(kind, Identity):
        lines.wait("16s", value)
    elif isinstance(kind, String):
        text = lines.name()
        said = f"{lines.name(kind.write)}({value})" if kind.write else value
        lines.add(f"{text} = {said}")
        lines.text(text, f"{text}.encode()", f"{text}.encode('utf-8', 'surrogateescape')")
        lines.wait(lines.code, f"len({text})")
        _flush_write(lines)
        lines.add(f"w({text})")
    elif isinstance(kind, Struct):
        _write_struct(kind, value, lines)
    elif isinstance(kind, Vector):
        _write_vector(kind, value, lines)
    elif isinstance(kind, Map):
        both = lines.name()
        lines.add(f"{both} = {value}")
        lines.wait(lines.code, f"len({both})")
        _flush_write(lines)
        key, item = lines.name(), lines.name()
        lines.open(f"for {key}, {item} in {both}.items():")
        _write(kind.key, key, lines)
        _write(kind.value, item, lines)
        _flush_write(lines)
        lines.close()
    else:
        _flush_write(lines)
        name = lines.name()
        lines.add(f"{name} = {value}")
        _write_choice(kind, name, lines)


def _write_choice(kind: Type, value: str, lines: _Lines) -> None:
    if isinstance(kind, Optional):
        lines.open(f"if {value} is None:")
        lines.add("w(b'\\0')")
        lines.close()
        lines.open("else:")
        lines.wait("B", "1")
        _write(kind.item, value, lines)
    elif isinstance(kind, Expected):
        refused = f"type({value}) is Code" + (f" and {value}" if isinstance(kind.item, Void) else "")
        lines.open(f"if {refused}:")
        lines.add(f"w({lines.name(struct.Struct('<Bi').pack, 'k')}(0, {value}))")
        lines.close()
        lines.open("else:")
        lines.wait("B", "1")
        if not isinstance(kind.item, Void):
            _write(kind.item, value, lines)
    else:
        for number, item in enumerate(cast("Variant", kind).items):
            lines.open(f"{'el' if number else ''}if type({value}) is {lines.name(item.make, 'c')}:")
            lines.wait("B", str(number))
            _write(item, value, lines)
            _flush_write(lines)
            lines.close()
        lines.open("else:")
        lines.add(f"raise TypeError(f'this generation has no {{type({value}).__name__}}')")
    _flush_write(lines)
    lines.close()


def _write_struct(kind: Struct, value: str, lines: _Lines) -> None:
    name = lines.name()
    lines.add(f"{name} = {value}")
    for field, item in kind.fields:
        _write(item, f"{name}[{kind.names.index(field)}]", lines)


def _write_vector(kind: Vector, value: str, lines: _Lines) -> None:
    name, item = lines.name(), kind.item
    lines.add(f"{name} = {value}")
    lines.wait(lines.code, f"len({name})")
    _flush_write(lines)
    each = lines.name()
    if isinstance(item, Scalar) and item.write == "{}":
        lines.names["pack"] = struct.pack
        lines.add(f"w(pack(f'<{{len({name})}}{item.code}', *{name}))")
        return
    if isinstance(item, Expected) and (isinstance(item.item, Void) or item.item is BOOL):
        lines.names["known"] = _EXISTS if item.item is BOOL else _DONE
        refused = lines.name(struct.Struct("<Bi").pack, "k")
        lines.add("try:", _INDENT + f"w(b''.join(map(known, {name})))", "except TypeError:")
        lines.add(_INDENT + f"w(b''.join([known({each}) or {refused}(0, {each}) for {each} in {name}]))")
        return
    lines.open(f"for {each} in {name}:")
    if isinstance(item, String) and not item.write and lines.width == 1:
        lines.text(each, f"{each}.encode()", f"{each}.encode('utf-8', 'surrogateescape')")
        lines.add(f"w(ONE[len({each})] + {each})")
    else:
        _write(item, each, lines)
        _flush_write(lines)
    lines.close()
