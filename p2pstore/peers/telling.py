"""The lines that tell a listener of news, made of them. Pure. ``p2pstore.cluster.news_lines`` reads them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from p2pstore.cluster.news import Shared
from p2pstore.swarm.gateway import Claim
from p2pstore.swarm.granter import Grant

_encode = json.JSONEncoder(separators=(",", ":")).encode  # ``dumps`` makes one for each call


def line(value: dict[str, Any]) -> bytes:
    """One object as a line."""
    return _encode(value).encode() + b"\n"


def grant_line(grant: Grant) -> bytes:
    """The line that tells who is granted something."""
    run = {"run": [_run(grant.run)]} if grant.run else {}
    return line({"grant": grant.number, "window": grant.window, "lead": round(grant.lead, 4)} | run)


@lru_cache(maxsize=64)
def news_line(news: tuple[range, ...] | Shared | Claim) -> bytes:
    """The line that tells of other news: made once for all listeners."""
    value: dict[str, Any]
    if isinstance(news, Shared):
        value = {"shared": news.shared}
    elif isinstance(news, Claim):
        value = {"gateway": [news.share, news.term, news.rank, news.token], "own": news.own}
    elif news:
        value = {"have": [_run(run) for run in news]}
    else:
        value = {}
    return line(value)


def _run(run: range) -> list[int]:
    return [run.start, len(run)]
