"""What of an object is wanted."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.errors import NotInObject, UsageError
from p2pstore.objects.chosen import ByteRange, Choice, choose, parse_range
from tests.p2pstore.samples import manifest_of

TREE = manifest_of(
    dict.fromkeys(("a.bin", "config.json", "sub/a.bin", "sub/deep/b.json", "subway"), b"x"),
    directories=("empty", "sub/none"),
)
FILE = manifest_of({"": b"x" * 10})


def paths(choice: Choice) -> list[str]:
    return list(choose(TREE, choice, "n").paths)


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(include=("*.json",)), ["config.json", "sub/deep/b.json"]),
        (Choice(include=("/*.json",)), ["config.json"]),
        (Choice(include=("*.bin",), exclude=("sub/",)), ["a.bin"]),
        (Choice(exclude=("sub",)), ["a.bin", "config.json", "subway"]),
        (Choice("sub"), ["a.bin", "deep/b.json"]),
        (Choice("sub/", include=("*.json",)), ["deep/b.json"]),
        (Choice("sub/deep"), ["b.json"]),
        (Choice("sub/deep/b.json"), [""]),
        (Choice(include=("config.json", "sub/a.bin")), ["config.json", "sub/a.bin"]),
    ],
)
def test_files(choice: Choice, wanted: list[str]) -> None:
    assert paths(choice) == wanted


def test_numbers_and_kinds() -> None:
    assert choose(TREE, Choice("sub/deep/b.json"), "n") == ("file", [3], [""], ())
    assert choose(TREE, Choice("sub"), "n") == ("directory", [2, 3], ["a.bin", "deep/b.json"], ("none",))
    assert choose(TREE, Choice(exclude=("empty",)), "n").directories == ("sub/none",)
    assert choose(TREE, Choice(include=("*.json",)), "n").directories == ()
    assert choose(TREE, Choice("empty"), "n") == ("directory", [], [], ())
    assert choose(FILE, Choice(range=ByteRange(0, 3)), "n") == ("file", [0], [""], ())


@pytest.mark.parametrize("inside", ["config", "sub/a", "../etc/passwd", "config.json/x", "."])
def test_what_is_not_there(inside: str) -> None:
    with pytest.raises(NotInObject, match="nothing in n is called"):
        choose(TREE, Choice(inside), "n")
    with pytest.raises(NotInObject):
        choose(FILE, Choice(inside), "n")


def test_patterns_that_nothing_fits() -> None:
    with pytest.raises(NotInObject, match=r"nothing in n is taken by --include '\*.bim' --exclude 'x'"):
        choose(TREE, Choice(include=("*.bim",), exclude=("x",)), "n")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice(range=ByteRange(0, 1)), "is a directory"),
        (Choice("sub", range=ByteRange(0, 1)), "is a directory"),
        (Choice("a.bin", include=("*",)), "is a single file"),
        (Choice(include=("[z-a]",)), "brackets"),
    ],
)
def test_what_makes_no_sense(choice: Choice, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose(TREE, choice, "n")


@pytest.mark.parametrize(
    ("text", "place"),
    [("0-0", (0, 1)), ("bytes=2-4", (2, 5)), ("2-", (2, 10)), ("-3", (7, 10)), ("5-99", (5, 10)), ("-99", (0, 10))],
)
def test_ranges(text: str, place: tuple[int, int]) -> None:
    assert parse_range(text).within(10) == place


@pytest.mark.parametrize("text", ["", "-", "3", "4-3", "a-b", "1-2,4-5", "1:2", "-1-2"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|ends before"):
        parse_range(text)


@pytest.mark.parametrize("text", ["10-", "10-12", "-0"])
def test_a_range_without_a_byte(text: str) -> None:
    with pytest.raises(UsageError, match="has no byte of a file of 10 bytes"):
        parse_range(text).within(10)


@given(st.text(max_size=12), st.integers(0, 100))
def test_any_text(text: str, size: int) -> None:
    with contextlib.suppress(ValueError, UsageError):
        begin, end = parse_range(text).within(size)
        assert 0 <= begin < end <= size
