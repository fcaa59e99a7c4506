"""The types of struct_pack: what a message is made of, and the literal by which both sides tell that they mean it.

Source: yalantinglibs' ``struct_pack`` (``type_id.hpp``, ``type_calculate.hpp``). A literal is a string of type bytes;
its MD5 is the hash in front of each message. A type here knows its literal and, where it is a struct, what becomes of
its fields: a ``NamedTuple`` of ``engine.rpc.messages``, or the arguments of a call. Reading and writing is compiled
from it in ``engine.rpc.compiled``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_LITERAL = 1024
"""Longest literal that is looked into, bytes; the longest of upstream's has 170."""

MAX_DEPTH = 16
"""Deepest nesting in a literal that is looked into; upstream's have 8."""

MAX_SHOWN = 64
"""How much of a literal that cannot be read stands in the log, bytes."""

_END = b"\xff"


class Type:
    """One type; ``literal`` is what upstream calls it."""

    literal: bytes = b""
    words: str = ""
    """What it is called in the log."""


class Scalar(Type):
    """A number of fixed size. ``code`` is ``struct``'s; ``read`` and ``write`` are expressions over ``{}``."""

    def __init__(self, literal: int, code: str, words: str, *, read: str = "{}", write: str = "{}") -> None:
        self.literal = bytes((literal,))
        self.code = code
        self.words = words
        self.read = read
        self.write = write


class Identity(Type):
    """The id of a client, segment or task: a pair of u64, which stays 16 bytes here."""

    literal = b"\xfd\x04\x04\x89\x89\xff"
    words = "id"


class String(Type):
    """Bytes on the wire, text here; what is not UTF-8 survives by surrogates. ``read`` and ``write`` convert it."""

    literal = b"\x80\x0c"
    words = "string"

    def __init__(self, *, read: Callable[[str], str] | None = None, write: Callable[[str], str] | None = None) -> None:
        self.read = read
        self.write = write


class Void(Type):
    """Nothing, in the answer of a call that succeeds or fails."""

    literal = b"\xfa"
    words = "void"


class Vector(Type):
    """A list."""

    def __init__(self, item: Type) -> None:
        self.item = item
        self.literal = b"\x84" + item.literal
        self.words = f"[{item.words}]"


class Pairs(Vector):
    """A map on the wire, a list of structs of two fields here."""

    def __init__(self, item: Struct) -> None:
        super().__init__(item)
        self.literal = b"\x82" + b"".join(field.literal for _, field in item.fields)


class Map(Type):
    """A ``dict``."""

    def __init__(self, key: Type, value: Type) -> None:
        self.key = key
        self.value = value
        self.literal = b"\x82" + key.literal + value.literal
        self.words = f"{{{key.words}: {value.words}}}"


class Optional(Type):
    """A value, or None."""

    def __init__(self, item: Type) -> None:
        self.item = item
        self.literal = b"\x85" + item.literal
        self.words = f"{item.words}?"


class Expected(Type):
    """A value, or a ``Code``; of ``VOID`` the value is ``Code.OK``."""

    def __init__(self, item: Type) -> None:
        self.item = item
        self.literal = b"\x87" + item.literal + b"\x01"
        self.words = f"{item.words} or code"


class Variant(Type):
    """One of several structs, told by the class that ``Struct.make`` names."""

    def __init__(self, *items: Struct) -> None:
        self.items = items
        self.literal = b"\x86" + b"".join(item.literal for item in items) + _END
        self.words = "<" + " | ".join(item.words for item in items) + ">"


class Struct(Type):
    """Fields in the order of the wire, that become fields of ``make`` by name.

    What ``make`` has and the wire has not is given from ``defaults``, then from its own defaults. ``braces`` is how
    many structs of one field each are around it, itself included: the arguments of a call of one argument have none.
    ``few``: callers say nearly always the same there, so it is worth while to remember what it is in bytes.
    """

    def __init__(
        self,
        make: type[Any],
        fields: Sequence[tuple[str, Type]],
        *,
        names: Sequence[str] = (),
        defaults: Mapping[str, Any] | None = None,
        braces: int = 1,
        few: bool = False,
    ) -> None:
        self.make = make
        self.fields = tuple(fields)
        self.names: tuple[str, ...] = tuple(names or getattr(make, "_fields", ()))
        self.few = few
        self.defaults: dict[str, Any] = {**getattr(make, "_field_defaults", {}), **(defaults or {})}
        body = b"".join(kind.literal for _, kind in self.fields)
        self.literal = b"\xfd" * braces + body + _END * braces
        self.words = "(" + ", ".join(kind.words for _, kind in self.fields) + ")"
        lacking = set(self.names) - {name for name, _ in self.fields} - set(self.defaults)
        if lacking:
            raise ValueError(f"{make.__name__} has no value for {', '.join(sorted(lacking))}")


I32 = Scalar(0x01, "i", "i32")
U32 = Scalar(0x02, "I", "u32")
I64 = Scalar(0x03, "q", "i64")
U64 = Scalar(0x04, "Q", "u64")
U8 = Scalar(0x06, "B", "u8")
BOOL = Scalar(0x0B, "?", "bool")
STRING = String()
ID = Identity()
VOID = Void()

_OTHERS = (
    Scalar(0x05, "b", "i8"),
    Scalar(0x07, "h", "i16"),
    Scalar(0x08, "H", "u16"),
    Scalar(0x11, "f", "f32"),
    Scalar(0x12, "d", "f64"),
)
"""What no message of ours has, and an unknown one may."""


def arguments(names: Sequence[str], defaults: Mapping[str, Any], fields: Mapping[str, Type]) -> Struct:
    """The arguments of a call: a plain tuple, in the order of ``names``, of what stands on the wire and of defaults."""
    given = {name: value for name, value in defaults.items() if name in names}
    return Struct(tuple, list(fields.items()), names=names, defaults=given, braces=0 if len(fields) < 2 else 1)


def type_hash(literal: bytes) -> int:
    """The number in front of a message that says its type and has its literal behind it."""
    return int.from_bytes(hashlib.md5(literal, usedforsecurity=False).digest()[:4], "big") | 1


def function_id(method: str, service: str = "WrappedMasterService") -> int:
    """The number of a method of the master, or of another class."""
    name = f"mooncake::{service}::{method}".encode()
    return int.from_bytes(hashlib.md5(name, usedforsecurity=False).digest()[:4], "big")


def describe(literal: bytes) -> str:
    """A literal in words, for the log; one that nobody can read is shown as it is, as far as it is not too long."""
    try:
        return ", ".join(kind.words for kind in parse(literal))
    except ValueError:
        return literal[:MAX_SHOWN].hex(" ")


def parse(literal: bytes) -> list[Type]:
    """The types that a literal strings together; its structs are tuples. Raises ``ValueError``."""
    if len(literal) > MAX_LITERAL:
        raise ValueError(f"a type literal of {len(literal)} bytes")
    types = []
    at = 0
    while at < len(literal):
        kind, at = _parsed(literal, at, MAX_DEPTH)
        types.append(kind)
    return types


def _parsed(literal: bytes, at: int, depth: int) -> tuple[Type, int]:
    if not depth or at >= len(literal):
        raise ValueError("a type literal that does not end")
    if literal.startswith(ID.literal, at):
        return ID, at + len(ID.literal)
    if literal.startswith(STRING.literal, at):
        return STRING, at + len(STRING.literal)
    first = literal[at]
    at += 1
    if first in _LEAVES:
        return _LEAVES[first], at
    if first in _NESTED:
        item, at = _parsed(literal, at, depth - 1)
        return _NESTED[first](item), at
    if first == 0x82:
        key, at = _parsed(literal, at, depth - 1)
        value, at = _parsed(literal, at, depth - 1)
        return Map(key, value), at
    if first == 0x87:
        item, at = _parsed(literal, at, depth - 1)
        if literal[at : at + 1] != I32.literal:
            raise ValueError("a type literal whose error is no code")
        return Expected(item), at + 1
    if first in (0x86, 0xFD):
        return _parsed_fields(literal, at, depth, first)
    raise ValueError(f"a type literal with the unknown type {first:#04x}")


def _parsed_fields(literal: bytes, at: int, depth: int, first: int) -> tuple[Type, int]:
    fields = []
    while literal[at : at + 1] != _END:
        field, at = _parsed(literal, at, depth - 1)
        fields.append(field)
    if first == 0xFD:
        return _tuple(fields), at + 1
    return Variant(*(each if isinstance(each, Struct) else _tuple([each], braces=0) for each in fields)), at + 1


def _tuple(fields: list[Type], braces: int = 1) -> Struct:
    named = [(f"field{number}", field) for number, field in enumerate(fields)]
    return Struct(tuple, named, names=[name for name, _ in named], braces=braces)


_LEAVES: dict[int, Type] = {kind.literal[0]: kind for kind in (I32, U32, I64, U64, U8, BOOL, VOID, *_OTHERS)}
_NESTED: dict[int, Callable[[Type], Type]] = {0x84: Vector, 0x85: Optional}
