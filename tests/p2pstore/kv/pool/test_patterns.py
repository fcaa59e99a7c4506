"""Patterns that strangers send."""

from __future__ import annotations

import re
import time

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
    assert len(key) <= compiled.longest


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a*)*b",
        "(a|a)*b",
        "((a)|b?)+c",
        "(x{1,99}){1,99}y",
        "a.*.*.*.*=",
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


@pytest.mark.parametrize(
    "pattern",
    [".*.*.*x", "a*.*a*x", "(?:.a)?(?:.a)?(?:.a)?[a-z]*[a-y]*x", "(a|aa)(a|aa)(a|aa).*x", "^.*a.*b$", "[ab]*x"],
)
def test_no_key_that_it_may_be_tried_on_takes_long(pattern: str) -> None:
    compiled = bounded(pattern)
    assert compiled is not None
    began = time.thread_time()
    assert not compiled.search("a" * compiled.longest)
    assert time.thread_time() - began < 1, "some 20 ms; without a bound it would be minutes"


@pytest.mark.parametrize(
    "pattern",
    [".*", ".*foo", "foo.*", ".*foo.*", r"foo\.*", ".*|foo", ".*?foo", ".*+foo", "foo|.*", "^foo.*", "fo.*.*"],
)
@pytest.mark.parametrize("key", ["", "foo", "xfoox", "foo.", "foo...", "bar", "x\nfoo\ny"])
def test_what_may_be_anything_is_left_out_and_that_changes_nothing(pattern: str, key: str) -> None:
    compiled = bounded(pattern)
    if compiled is None:
        assert pattern == ".*+foo", "Python knows it since 3.11, and we count repeats in a row otherwise"
    else:
        assert bool(compiled.search(key)) == bool(re.search(pattern, key))


@pytest.mark.parametrize(("pattern", "length"), [("^model@.*", 1 << 20), (".*model.*", 1 << 20), (".*a.*b", 4000)])
def test_usual_patterns_are_tried_on_long_keys(pattern: str, length: int) -> None:
    compiled = bounded(pattern)
    assert compiled is not None
    assert compiled.longest >= length
