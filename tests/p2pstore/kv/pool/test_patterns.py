"""Patterns that strangers send."""

from __future__ import annotations

import pytest

from p2pstore.kv.pool.patterns import MAX_PATTERN, bounded


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("^model@tp_rank:0@.*", "model@tp_rank:0@pcp0@x"),
        ("(?:foo|bar)-[0-9]+$", "a-bar-17"),
        (r"a\+b", "a+b"),
        ("[(*+]x", "*x"),
        ("https?://", "http://"),
        ("k{2,3}$", "akk"),
        ("(?i)ABC", "xabc"),
        ("^(" + "|".join(f"key{number}" for number in range(100)) + ")$", "key99"),
        ("", "anything"),
    ],
)
def test_what_people_use_works(pattern: str, key: str) -> None:
    compiled = bounded(pattern)
    assert compiled is not None
    assert compiled.search(key)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a*)*b",
        "(a|a)*b",
        "((a)|b?)+c",
        "(x{1,99}){1,99}y",
        ".*.*.*.*=",
        "a?" * 30 + "a" * 30,
        r"(.*)\1",
        "(ab|a.)" * 40 + "x",
        "((ab|a.)(ab|a.))" * 20 + "x",
        "(?:(?:a+))+b",
    ],
)
def test_what_could_take_for_ever_is_refused(pattern: str) -> None:
    assert bounded(pattern) is None


@pytest.mark.parametrize("pattern", ["(", "[", "*", "a{3,1}", "x" * (MAX_PATTERN + 1)])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    assert bounded(pattern) is None
