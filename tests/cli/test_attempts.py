"""A call that is made again."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mooncake_cli.attempts import Attempts
from mooncake_cli.output import Output
from p2pstore.agent.patience import Patience
from p2pstore.errors import (
    AgentEnded,
    AgentGone,
    AgentNotRunning,
    GetTimedOut,
    MooncakeError,
    NoLivePeer,
    ObjectNotFound,
)

RESULT = {"event": "result", "name": "n"}
NOBODY = NoLivePeer(name="n", detail="nobody")


class Calls:
    """Long calls, each of which brings these events, or raises what is among them."""

    def __init__(self, *calls: list[dict[str, Any] | MooncakeError]) -> None:
        self._calls = list(calls)
        self.ended = 0

    def __call__(self) -> Iterator[dict[str, Any]]:
        try:
            for event in self._calls.pop(0):
                if isinstance(event, MooncakeError):
                    raise event
                yield event
        finally:
            self.ended += 1


def attempts(wait: float = 0, retries: int = 0, limit: float = math.inf) -> Attempts:
    return Attempts(Output("quiet"), lambda: Patience(wait, retries), limit)


def test_what_comes_in_the_end() -> None:
    calls = Calls([ObjectNotFound(name="n")], [NOBODY], [RESULT])
    assert attempts(wait=math.inf).follow(calls, "n", "pulling") == {"name": "n"}
    assert calls.ended == 3


def test_a_fault_that_stays_is_raised() -> None:
    with pytest.raises(NoLivePeer):
        attempts(retries=1).follow(Calls([NOBODY], [NOBODY], [RESULT]), "n", "pulling")


def test_an_agent_that_is_not_there_any_more() -> None:
    missing = ObjectNotFound(name="n")
    with pytest.raises(AgentGone, match="the agent in /h ended while it was at work"):
        attempts(wait=math.inf).follow(Calls([missing], [AgentNotRunning(home="/h")]), "n", "pulling")
    ended = AgentEnded(home="/h", time="now", detail="it says why")
    with pytest.raises(AgentEnded):
        attempts(wait=math.inf).follow(Calls([missing], [ended]), "n", "pulling")


def test_bytes_that_come_renew_the_patience() -> None:
    moving: list[dict[str, Any] | MooncakeError] = [{"event": "progress", "done": done, "total": 9} for done in (1, 2)]
    calls = Calls([NOBODY], [*moving, NOBODY], [NOBODY], [RESULT])
    patience = Patience(0.01, 3, clock := iter(range(100)).__next__)
    del clock
    made = Attempts(Output("quiet"), lambda: patience, math.inf)
    assert made.follow(calls, "n", "pulling") == {"name": "n"}


def test_time_ends_a_call_and_a_pause() -> None:
    def slow() -> Iterator[dict[str, Any]]:
        time.sleep(60)
        yield RESULT

    before = signal.getsignal(signal.SIGALRM)
    began = time.monotonic()
    with pytest.raises(GetTimedOut, match=r"not all of 'n' came within 0\.05 s"):
        attempts(limit=0.05).follow(slow, "n", "pulling")
    with pytest.raises(GetTimedOut):
        attempts(wait=math.inf, limit=0.2).call(lambda: (_ for _ in ()).throw(NOBODY), "n")
    assert time.monotonic() - began < 50
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
