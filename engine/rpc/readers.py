"""Readers of messages, made of their types.

A reader does not compare each length with what is left. A slice past the end is short, and what follows it is an
``IndexError``, a ``struct.error``, or an end that is not the end of the message; nothing is made ahead of its bytes,
except where the count is compared first. So what is read takes memory in proportion to the message, whatever it says.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import repeat
from typing import Any, cast

from engine.rpc.lines import INDENT, Lines
from engine.rpc.types import (
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
)

META_LITERAL = b"\xfd\x80\x0c\x85\x04\xff"
"""Of a key with its checksum, of which a call may have many."""

MAX_TAIL = 512
"""Bytes of the end of a call that are remembered with what they say; a usual one has 60."""

MAX_TAILS = 256
"""Such ends of one form of a call, and one width of its lengths, at a time."""


def reader(
    kind: Type, width: int, prefix: bytes = b"", other: Callable[[bytes, int], Any] | None = None
) -> Callable[[bytes, int], Any]:
    """A function of a message and of where its value begins. It raises one of ``MALFORMED``.

    With a ``prefix`` it is one of where that begins; what begins in another way is for the ``other`` function.
    """
    lines = Lines(width)
    if prefix:
        begins = lines.name(prefix, "x")
        lines.add(f"if not b.startswith({begins}, p):", f"{INDENT}return {lines.name(other, 'r')}(b, p)")
        lines.add(f"p += {len(prefix)}")
    if isinstance(kind, Struct) and any(isinstance(item, Struct) and item.few for _, item in kind.fields):
        value = _read_call(kind, lines)
    else:
        value = _read(kind, lines)
        _flush_read(lines)
        _must_end(lines)
    lines.add(f"return {value}")
    return lines.function("def made(b, p=0):")


def _must_end(lines: Lines) -> None:
    lines.add("if p != len(b):", INDENT + "raise ValueError('a length that is not true')")


def _read_call(kind: Struct, lines: Lines) -> str:
    """Arguments, of which the last ones are of few kinds: what they say is remembered by their bytes."""
    first = next(at for at, (_, item) in enumerate(kind.fields) if isinstance(item, Struct) and item.few)
    found = {name: _read(field, lines) for name, field in kind.fields[:first]}
    _flush_read(lines)
    known = lines.name({}, "k")
    lines.add("tail = b[p:]", f"rest = {known}.get(tail)")
    lines.open("if rest is None:")
    rest = [_read(field, lines) for _, field in kind.fields[first:]]
    _flush_read(lines)
    _must_end(lines)
    lines.add(f"rest = ({', '.join(rest)},)")
    lines.open(f"if len(tail) <= {MAX_TAIL}:")
    lines.add(f"if len({known}) >= {MAX_TAILS}:", f"{INDENT}{known}.clear()", f"{known}[tail] = rest")
    lines.close()
    lines.close()
    found |= {name: f"rest[{at}]" for at, (name, _) in enumerate(kind.fields[first:])}
    return _made(kind, found, lines)


def _flush_read(lines: Lines) -> None:
    codes, targets = lines.taken()
    if not targets:
        return
    if codes == "B":
        lines.add(f"{targets[0]} = b[p]", "p += 1")
        return
    packer = struct.Struct("<" + codes)
    lines.add(f"{', '.join(targets)}, = {lines.name(packer.unpack_from, 'u')}(b, p)", f"p += {packer.size}")


def _read(kind: Type, lines: Lines) -> str:
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


def _read_void(kind: Type, lines: Lines) -> str:
    if isinstance(kind, Void):
        return "Code.OK"
    value = _read(kind, lines)
    _flush_read(lines)
    return value


def _read_choice(lines: Lines, first: str, value: str, heads: list[tuple[str, Any]], otherwise: str) -> None:
    for head, kind in heads:
        lines.open(head)
        lines.add(f"{value} = {_read_void(kind, lines)}")
        lines.close()
    lines.open("else:")
    lines.add(f"{value} = {otherwise}" if otherwise else f"raise ValueError(f'no variant {{{first}}}')")
    lines.close()


def _read_struct(kind: Struct, lines: Lines) -> str:
    found = {name: _read(field, lines) for name, field in kind.fields}
    return _made(kind, found, lines)


def _made(kind: Struct, found: dict[str, str], lines: Lines) -> str:
    parts = [found.get(name) or lines.name([kind.defaults[name]], "d") + "[0]" for name in kind.names]
    made = "(" + "".join(f"{part}, " for part in parts) + ")"
    return made if kind.make is tuple else f"new({lines.name(kind.make, 'c')}, {made})"


def _read_vector(kind: Vector, lines: Lines, count: str, value: str) -> None:
    item = kind.item
    if isinstance(item, Scalar) and item.read == "{}":
        size = struct.calcsize("<" + item.code)
        lines.names["unpack_from"] = struct.unpack_from
        lines.add(
            f"q = p + {size} * {count}", "if q > len(b):", INDENT + "raise ValueError('a count that is not true')"
        )
        lines.add(f"{value} = list(unpack_from(f'<{{{count}}}{item.code}', b, p))", "p = q")
        return
    lines.add(f"{value} = []")
    add = lines.name(stem="a")
    lines.add(f"{add} = {value}.append")
    if isinstance(item, String) and not item.read and lines.width <= 2:
        _read_texts(lines, count, value, add)
        return
    metas = item.literal == META_LITERAL and lines.width == 1
    if metas:
        lines.add(f"like = {lines.name(_metas_alike, 'm')}(b, p, {count})")
        lines.open("if like is None:")
    lines.open(f"for _ in range({count}):")
    each = _read(item, lines)
    _flush_read(lines)
    lines.add(f"{add}({each})")
    lines.close()
    if metas:
        lines.close()
        lines.add("else:", f"{INDENT}{value}, p = like")


def _metas_alike(data: bytes, at: int, count: int) -> tuple[list[tuple[str, int | None]], int] | None:
    """Keys of one length and in ASCII, as those of one call nearly always are, all with a checksum or all without one.

    Those are read as they lie, at one distance; None where they are not so.
    """
    length = data[at] if at < len(data) else 0
    start = at + 1 + length
    flag = data[start] if start < len(data) else 2
    step = 2 + length + 8 * flag
    end = at + step * count
    if flag > 1 or count < 2 or end > len(data):
        return None
    if data[at:end:step] != data[at : at + 1] * count or data[start:end:step] != data[start : start + 1] * count:
        return None
    text = data[at:end].decode("latin-1")
    keys = [text[first : first + length] for first in range(1, len(text), step)]
    if not "".join(keys).isascii():
        return None
    if not flag:
        return list(zip(keys, repeat(None))), end
    sums = struct.unpack("<" + f"{step - 8}xQ" * count, data[at:end])
    return list(zip(keys, sums, strict=True)), end


def _read_texts(lines: Lines, count: str, value: str, add: str) -> None:
    """As Latin-1 a message is text of the same length, and a slice of text that is ASCII is what it would decode to.

    Keys of one call have nearly always one length: then they are slices at one distance, and need no look at each.
    """
    width = lines.width
    length = "b[p]" if width == 1 else "(b[p] | b[p + 1] << 8)"
    lines.add("text = b.decode('latin-1')")
    lines.open(f"if {count} > 1 and p + {width} <= len(b):")
    lines.add(
        f"step = {width} + {length}",
        f"q = p + step * {count}",
        f"like = all(b[p + at:q:step] == b[p + at:p + at + 1] * {count} for at in range({width}))",
        f"s = [text[at:at + step - {width}] for at in range(p + {width}, q + 1, step)] if like and q <= len(b) else ()",
        "like = s and ''.join(s).isascii()",
    )
    lines.close()
    lines.open("else:")
    lines.add("like = False")
    lines.close()
    lines.open("if like:")
    lines.add(f"{value} = s", "p = q")
    lines.close()
    lines.open("else:")
    lines.open(f"for _ in range({count}):")
    lines.add(f"q = p + {width} + {length}", f"s = text[p + {width}:q]")
    lines.open("if not s.isascii():")
    lines.text("s", "s.encode('latin-1').decode()", "s.encode('latin-1').decode('utf-8', 'surrogateescape')")
    lines.close()
    lines.add(f"{add}(s)", "p = q")
    lines.close()
    lines.close()
