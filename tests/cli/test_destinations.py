"""What DEST means: a path, or a directory in which each object lies under the last part of its name."""

from __future__ import annotations

import os

import pytest

from engine.errors import MooncakeError
from mooncake_cli.destinations import destination, place_of, places_of
from p2pstore.errors import AgentGone, ObjectNotFound, UsageError


@pytest.mark.parametrize(
    ("dest", "meant"),
    [("x", "/w/x"), ("x/", "/w/x/name"), (".", "/w/name"), ("..", "/name"), ("/a/./", "/a/name"), ("/a/b", "/a/b")],
)
def test_destinations(monkeypatch: pytest.MonkeyPatch, dest: str, meant: str) -> None:
    monkeypatch.setattr("os.getcwd", lambda: "/w")
    assert destination("models/name", dest) == meant


class Tags:
    """An agent that knows some objects."""

    def __init__(self, *names: str, fault: MooncakeError | None = None) -> None:
        self.names = names
        self.fault = fault
        self.asked: list[str] = []

    def __call__(self, name: str) -> object:
        self.asked.append(name)
        if self.fault is not None:
            raise self.fault
        if name not in self.names:
            raise ObjectNotFound(name=name)
        return {}


@pytest.mark.parametrize(
    ("name", "known", "last"),
    [
        ("a/b", [], "b"),
        ("a/b/", [], "b"),
        ("n:v1", ["n:v1"], "n"),
        ("a/n:v1", ["a/n:v1"], "n"),
        ("a/b:c", ["a"], "b:c"),
        ("a/b:c", [], "b"),
    ],
)
def test_a_tag_is_no_part_of_the_name_and_a_files_name_is(name: str, known: list[str], last: str) -> None:
    tags = Tags(*known)
    assert place_of(tags, name, "/data/") == f"/data/{last}"
    assert tags.asked == [] or ":" in name, "it is asked only where that matters"
    assert place_of(Tags(), name, "/data/x") == "/data/x"


def test_an_agent_that_cannot_say_is_not_waited_for() -> None:
    assert place_of(Tags(fault=AgentGone(home="/h")), "a/b:c", "/data/") == "/data/b"


def test_several_lie_side_by_side() -> None:
    assert places_of(Tags(), ["m/a", "m/b"], "/data/") == {"/data/a": "m/a", "/data/b": "m/b"}
    with pytest.raises(UsageError, match=r"m/a and n/a would both be /data/a"):
        places_of(Tags(), ["m/a", "n/a"], "/data/")
    with pytest.raises(UsageError, match=r"several objects cannot all be /data/x; '/data/x/' puts each inside"):
        places_of(Tags(), ["m/a", "m/b"], "/data/x")


def test_an_empty_one_is_refused() -> None:
    with pytest.raises(UsageError, match="DEST is empty"):
        destination("n", "")
    assert destination("m/n", ".") == os.path.abspath("n")
