from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.inspect.values import MAX_TEXT, PREVIEW, Malformed, parse_object, preview, printable, scalars


@given(st.text(alphabet=st.characters()))
def test_printable_text_is_safe_for_a_terminal_and_for_utf8(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()


def test_printable_keeps_what_is_harmless() -> None:
    assert printable("modèle 模型/v1") == "modèle 模型/v1"
    assert printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\x0a"
    assert printable(b"\xff".decode("utf-8", "surrogateescape")) == "\\xff"
    assert printable("x" * (MAX_TEXT + 1)) == "x" * MAX_TEXT + "..."


def test_preview() -> None:
    assert preview(b"ab\\\x00\xff") == "ab\\x5c\\x00\\xff"
    assert preview(b"x" * (PREVIEW + 1)) == "x" * PREVIEW + "..."


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"7", b"null", b"\xff", b'{"a":NaN}', b"[" * 100_000, b"1" * 10_000, b'{"a":', b"\x00"]
)
def test_values_that_are_no_json_object(value: bytes) -> None:
    with pytest.raises(Malformed):
        parse_object(value)


def test_scalars_are_always_json() -> None:
    data = parse_object(b'{"a":1e999,"b":[1],"c":{"d":1},"e":"x","f":null,"g":true,"h":1.5}')
    assert scalars(data) == {"e": "x", "f": None, "g": True, "h": 1.5}
    json.dumps(scalars(data), allow_nan=False)
