"""The lines that tell a listener of news, made of them. Pure. ``p2pstore.cluster.news_lines`` reads them.

What each chunk takes some of is JSON written by hand: that costs a fifth of the encoder.
"""

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
    run = f',"run":[{_run(grant.run)}]' if grant.run else ""
    return f'{{"grant":{grant.number},"window":{grant.window},"lead":{round(grant.lead, 4)}{run}}}\n'.encode()


@lru_cache(maxsize=64)
def news_line(news: tuple[range, ...] | Shared | Claim) -> bytes:
    """The line that tells of other news: made once for all listeners."""
    if isinstance(news, Shared):
        return line({"shared": news.shared})
    if isinstance(news, Claim):
        return line({"gateway": [news.share, news.term, news.rank, news.token], "own": news.own})
    if not news:
        return line({})
    return f'{{"have":[{",".join(map(_run, news))}]}}\n'.encode()


def _run(run: range) -> str:
    return f"[{run.start},{len(run)}]"
