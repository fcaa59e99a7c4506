"""What is told is read as what it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from p2pstore.cluster.news import NOTHING, Shared
from p2pstore.cluster.news_lines import read_news
from p2pstore.peers.telling import grant_line, line, news_line
from p2pstore.swarm.gateway import Claim, Rank
from p2pstore.swarm.granter import Grant


def read(told: bytes) -> Any:
    assert told.endswith(b"\n")
    assert told.count(b"\n") == 1
    return read_news("c:1", json.loads(told), 100)


@pytest.mark.parametrize(
    ("news", "expected"),
    [
        (Shared(True), Shared(True)),
        (Shared(False), Shared(False)),
        (Claim(2, 3, Rank.CANDIDATE, 5), Claim(2, 3, Rank.CANDIDATE, 5, own=False)),
        (Claim(2, 3, Rank.CANDIDATE, 5, own=True), Claim(2, 3, Rank.CANDIDATE, 5, own=True)),
        ((range(3, 5), range(9, 10)), [3, 4, 9]),
        (NOTHING, None),
    ],
)
def test_news(news: Any, expected: Any) -> None:
    assert read(news_line(news)) == expected
    assert news_line(news) == news_line(news)


@pytest.mark.parametrize("run", [None, range(7, 9)])
def test_a_grant(run: range | None) -> None:
    assert read(grant_line(Grant("key", 12, run, 3, 0.123456))) == Grant("", 12, run, 3, 0.1235)


def test_a_line_has_no_spaces() -> None:
    assert line({"a": [1, 2], "b": None}) == b'{"a":[1,2],"b":null}\n'
