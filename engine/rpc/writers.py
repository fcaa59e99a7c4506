"""Writers of messages, made of their types."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import takewhile
from typing import Any, cast

from engine.rpc.codes import Code
from engine.rpc.framing import ANSWER, MAGIC
from engine.rpc.lines import INDENT, Lines
from engine.rpc.messages import Lone, Memory, Replica, Replicas
from engine.rpc.types import (
    BOOL,
    STRING,
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

MAX_TEXTS = 4096
"""Places whose texts are remembered, for each width of lengths: as many as a pool may well have segments."""

CHECKSUM_BYTES = 8
"""What a value's checksum takes in an answer."""

MAX_TEXT = 512
"""Bytes of the longest texts that are."""

_DONE = {Code.OK: b"\x01"}.get
_EXISTS = {True: b"\x01\x01", False: b"\x01\x00"}.get
"""The commonest results, of which a batch has many: nothing, and whether a key exists."""


def writer(kind: Type, width: int) -> Callable[[Any], bytes]:
    """A function of a value that makes the bytes behind the literal; ``struct.error``, ``IndexError`` if too narrow."""
    lines = Lines(width)
    lines.add("parts = []", "w = parts.append")
    _write(kind, "value", lines)
    _flush_write(lines)
    lines.add("return b''.join(parts)")
    return lines.function("def made(value):")


def lone_answer(kind: Type, prefix: bytes, other: Callable[[int, Any], bytes]) -> Callable[[int, Any], bytes] | None:
    """A function of a sequence number and of what may be a ``Lone``, which makes the frame of an answer in one step.

    None where no such answer is a ``Lone``. ``prefix`` is how messages with lengths of one byte begin. What cannot be
    made so is for the ``other`` function.
    """
    lines = Lines(1)
    alone = _lone(kind.item, lines.code) if isinstance(kind, Expected) else []
    if not alone:
        return None
    fields = [("B", "1"), *alone]
    owners = lines.name(_Owners(lines.code, [code for code, _ in fields], head=len(prefix)), "o")
    plain = ", ".join(name for code, name in fields if code != _MAYBE)
    start = f"{MAGIC}, sequence, length, 0, {lines.name(prefix, 'x')}, {plain}"
    otherwise = f"return {lines.name(other, 'r')}(sequence, value)"
    lines.add(f"if type(value) is not {lines.name(Lone, 'c')}:", INDENT + otherwise)
    lines.open("try:")
    lines.add(f"{', '.join(Lone._fields)} = value", f"text, pack, summed, length = {owners}[owner]")
    if fields[-1][0] != _MAYBE:
        lines.add(f"return pack({start})")
    else:
        lines.add("if checksum is None:", f"{INDENT}return pack({start}, 0)")
        lines.add(f"length += {CHECKSUM_BYTES}", f"return summed({start}, 1, checksum)")
    lines.close()
    lines.names["too_narrow"] = (struct.error, IndexError)
    lines.add("except too_narrow:", INDENT + otherwise)
    return lines.function("def made(sequence, value):")


def _flush_write(lines: Lines) -> None:
    codes, values = lines.taken()
    if not values:
        return
    packer = struct.Struct("<" + codes)
    if all(value.isdecimal() for value in values):
        lines.add(f"w({packer.pack(*map(int, values))!r})")
    else:
        lines.add(f"w({lines.name(packer.pack, 'k')}({', '.join(values)}))")


def _write(kind: Type, value: str, lines: Lines) -> None:
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
        name = lines.name()
        lines.add(f"{name} = {value}")
        _write_choice(kind, name, lines)


def _write_choice(kind: Type, value: str, lines: Lines) -> None:
    """What waits is written by each branch together with how that begins."""
    before = lines.waiting()
    if isinstance(kind, Optional):
        _branch(lines, f"if {value} is None:", before, "0")
        _branch(lines, "else:", before, "1", kind.item, value)
    elif isinstance(kind, Expected):
        refused = f"type({value}) is Code" + (f" and {value}" if isinstance(kind.item, Void) else "")
        alone = [] if before else _lone(kind.item, lines.code)
        if alone:
            lines.open(f"if type({value}) is {lines.name(Lone, 'c')}:")
            _write_lone([("B", "1"), *alone], value, lines)
            lines.close()
        lines.open(f"{'el' if alone else ''}if {refused}:")
        lines.wait_again(before)
        lines.wait("B", "0")
        lines.wait("i", value)
        _flush_write(lines)
        lines.close()
        _branch(lines, "else:", before, "1", None if isinstance(kind.item, Void) else kind.item, value)
    else:
        for number, item in enumerate(cast("Variant", kind).items):
            head = f"{'el' if number else ''}if type({value}) is {lines.name(item.make, 'c')}:"
            _branch(lines, head, before, str(number), item, value)
        lines.add("else:", f"{INDENT}raise TypeError(f'this generation has no {{type({value}).__name__}}')")


def _branch(
    lines: Lines, head: str, before: list[tuple[str, str]], tag: str, kind: Type | None = None, value: str = ""
) -> None:
    lines.open(head)
    lines.wait_again(before)
    lines.wait("B", tag)
    if kind is not None:
        _write(kind, value, lines)
    _flush_write(lines)
    lines.close()


_TEXT, _MAYBE = "text", "maybe"
"""What is no plain field of a ``Lone``: the texts of its owner, and the checksum, which is the last."""


def _lone(kind: Type, code: str) -> list[tuple[str, str]]:
    """How a ``Lone`` is written as a list of replicas or as what a reader is told: codes and expressions, if at all."""
    if isinstance(kind, Vector):
        item = _lone(kind.item, code)
        return item and [(code, "1"), *item]
    if not isinstance(kind, Struct) or kind.make not in {Replicas, Replica, Memory}:
        return []
    found: list[tuple[str, str]] = []
    for name, field in kind.fields:
        if isinstance(field, Variant):
            number = next(at for at, item in enumerate(field.items) if item.make is Memory)
            found += [("B", str(number)), *_lone(field.items[number], code)]
        elif isinstance(field, Vector):
            found += _lone(field, code)
        elif isinstance(field, Scalar):
            found.append((field.code, name))
        elif name == "protocol":  # the endpoint follows at once
            found.append((_TEXT, "text"))
        elif name == "checksum":
            found.append((_MAYBE, name))
    return found


def _write_lone(fields: list[tuple[str, str]], value: str, lines: Lines) -> None:
    """All of it in one call: its texts are known from others in the same segment."""
    known = lines.name(_Owners(lines.code, [code for code, _ in fields]), "o")
    lines.add(f"{', '.join(Lone._fields)} = {value}", f"text, pack, summed, _ = {known}[owner]")
    plain = ", ".join(name for code, name in fields if code != _MAYBE)
    if fields[-1][0] != _MAYBE:
        lines.add(f"w(pack({plain}))")
    else:
        lines.add(f"w(pack({plain}, 0) if checksum is None else summed({plain}, 1, checksum))")


_Owner = tuple[bytes, Callable[..., bytes], Callable[..., bytes], int]


class _Owners(dict[tuple[str, str], _Owner]):
    """Of a segment its texts as bytes, and how a value in it is packed, without a checksum and with one.

    With a ``head`` of so many bytes that is behind that of an answer's frame, and the length is that of the body.
    """

    def __init__(self, code: str, codes: list[str], head: int = 0) -> None:
        super().__init__()
        self._start = f"{ANSWER.format}{head}s" if head else "<"
        self._texts = _Texts(code)
        self._codes = codes

    def __missing__(self, owner: tuple[str, str]) -> _Owner:
        text = self._texts[owner]
        form = self._start + "".join({_TEXT: f"{len(text)}s", _MAYBE: "B"}.get(code, code) for code in self._codes)
        plain = struct.Struct(form)
        made = text, plain.pack, struct.Struct(f"{form}Q").pack, plain.size - ANSWER.size
        if len(text) <= MAX_TEXT:
            if len(self) >= MAX_TEXTS:
                self.clear()
            self[owner] = made
        return made


def _write_struct(kind: Struct, value: str, lines: Lines) -> None:
    name = lines.name()
    lines.add(f"{name} = {value}")
    fields = [(f"{name}[{kind.names.index(field)}]", item) for field, item in kind.fields]
    while fields:
        texts = [field for field, _ in takewhile(lambda each: each[1] is STRING, fields)] if kind.few else []
        if len(texts) > 1:
            _flush_write(lines)
            lines.add(f"w({lines.name(_Texts(lines.code), 't')}[{', '.join(texts)}])")
            del fields[: len(texts)]
        else:
            field, item = fields.pop(0)
            _write(item, field, lines)


class _Texts(dict[tuple[str, ...], bytes]):
    """The bytes of texts in a row, with their lengths, as far as they were written already."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self._length = struct.Struct("<" + code)

    def __missing__(self, texts: tuple[str, ...]) -> bytes:
        data = [text.encode("utf-8", "surrogateescape") for text in texts]
        made = b"".join([self._length.pack(len(each)) + each for each in data])
        if len(made) <= MAX_TEXT:
            if len(self) >= MAX_TEXTS:
                self.clear()
            self[texts] = made
        return made


def _write_vector(kind: Vector, value: str, lines: Lines) -> None:
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
        lines.add("try:", INDENT + f"w(b''.join(map(known, {name})))", "except TypeError:")
        lines.add(INDENT + f"w(b''.join([known({each}) or {refused}(0, {each}) for {each} in {name}]))")
        return
    lines.open(f"for {each} in {name}:")
    if isinstance(item, String) and not item.write and lines.width == 1:
        lines.text(each, f"{each}.encode()", f"{each}.encode('utf-8', 'surrogateescape')")
        lines.add(f"w(ONE[len({each})] + {each})")
    else:
        _write(item, each, lines)
        _flush_write(lines)
    lines.close()
