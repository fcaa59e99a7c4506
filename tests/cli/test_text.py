"""Text from elsewhere cannot steer a terminal, and times read as people say them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooncake_cli.text import MAX_NAME, SHORT_DIGEST, age, counted, printable, short_digest, shortened


@given(st.text(st.characters()))
def test_whatever_comes_what_is_shown_is_printable(text: str) -> None:
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb", "a\\nb"),
        ("\u202e", "\\u202e"),
        ("\udcff", "\\udcff"),
        ("naïve", "naïve"),
    ],
)
def test_what_would_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert shortened("node-1:15001") == "node-1:15001"
    assert shortened("n" * MAX_NAME) == "n" * MAX_NAME
    cut = shortened("node\n" + "x" * 10_000 + ":15001")
    assert len(cut) == MAX_NAME
    assert (cut[:6], cut[-6:]) == ("node\\n", ":15001")


def test_a_digest_is_cut_and_its_prefix_left_out() -> None:
    assert short_digest("sha256:" + "ab" * 32) == ("ab" * 32)[:SHORT_DIGEST]


def test_things_are_counted() -> None:
    assert [counted(n, "file") for n in (0, 1, 1234)] == ["0 files", "1 file", "1,234 files"]
    assert counted(2, "copy", "copies") == "2 copies"


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (1000.0, "now"),
        (997.0, "3 s ago"),
        (1005.0, "now"),
        ("1970-01-01T00:16:37Z", "3 s ago"),
        ("1970-01-01T00:16:37", "3 s ago"),
        ("yesterday", "yesterday"),
    ],
)
def test_how_long_ago(moment: float | str, shown: str) -> None:
    assert age(moment, now=1000.0) == shown
