"""Literals: what upstream calls its types, and what an unknown one says to people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rpc import types as t
from engine.rpc.methods import METHODS

ALL = {codec.kind.literal for method in METHODS.values() for codec in method.answers.values()} | {
    form.codec.kind.literal for method in METHODS.values() for form in method.requests.values() if form.codec
}


@pytest.mark.parametrize(
    ("kind", "literal", "words"),
    [
        (t.STRING, "80 0c", "string"),
        (t.ID, "fd 04 04 89 89 ff", "id"),
        (t.Vector(t.STRING), "84 80 0c", "[string]"),
        (t.Optional(t.U64), "85 04", "u64?"),
        (t.Expected(t.VOID), "87 fa 01", "void or code"),
        (t.Vector(t.Expected(t.BOOL)), "84 87 0b 01", "[bool or code]"),
        (t.Expected(t.Map(t.ID, t.Vector(t.STRING))), "87 82 fd 04 04 89 89 ff 84 80 0c 01", "{id: [string]} or code"),
        (t.arguments(["client", "count"], {}, {"client": t.ID, "count": t.U64}), "fd fd 04 04 89 89 ff 04 ff", "(id, u64)"),
        (t.arguments(["key"], {}, {"key": t.STRING}), "80 0c", "(string)"),
    ],
)  # fmt: skip
def test_a_type_knows_its_literal(kind: t.Type, literal: str, words: str) -> None:
    assert kind.literal.hex(" ") == literal
    assert kind.words == words


@pytest.mark.parametrize(
    ("literal", "number"),
    [("80 0c", 0x9DCFFA77), ("87 0b 01", 0x90E800D3), ("87 fa 01", 0xAF2868CD), ("84 87 fa 01", 0x39FC52CF)],
)
def test_the_hash_is_the_md5_of_the_literal_and_odd(literal: str, number: int) -> None:
    assert t.type_hash(bytes.fromhex(literal)) == number


@pytest.mark.parametrize("literal", sorted(ALL), ids=lambda each: each.hex())
def test_each_literal_of_ours_can_be_read_and_said(literal: bytes) -> None:
    assert b"".join(kind.literal for kind in t.parse(literal)) == literal
    assert t.describe(literal)


@given(st.binary(max_size=200))
def test_any_literal_can_be_said_to_people(literal: bytes) -> None:
    t.describe(literal)


@given(st.lists(st.sampled_from([0x82, 0x84, 0x85, 0x86, 0x87, 0xFD, 0xFF, 1, 4, 0x80, 0x0C]), max_size=2000))
def test_a_literal_that_nests_without_end_is_left(numbers: list[int]) -> None:
    t.describe(bytes(numbers))


def test_what_cannot_be_read_is_shown_as_it_is() -> None:
    assert t.describe(b"\x84") == "84"
    assert t.describe(b"\x84" * 5000) == " ".join(["84"] * t.MAX_SHOWN)
    assert t.describe(b"\xfd\x99\xff") == "fd 99 ff"
    assert t.describe(b"") == ""
    assert t.describe(b"\xfd\xff") == "()"


def test_a_struct_says_what_it_has_no_value_for() -> None:
    with pytest.raises(ValueError, match="tenant"):
        t.arguments(["key", "tenant"], {}, {"key": t.STRING})
