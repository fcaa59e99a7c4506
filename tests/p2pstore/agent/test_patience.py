"""When a get tries again."""

from __future__ import annotations

import math

import pytest

from p2pstore.agent.patience import PAUSES, Patience
from p2pstore.errors import (
    DestinationExists,
    HolderGone,
    MetadataFull,
    MetadataUnavailable,
    MooncakeError,
    NoLivePeer,
    ObjectNotFound,
    PeerUnreachable,
)

NOT_THERE = ObjectNotFound(name="n")
NOBODY = NoLivePeer(name="n", detail="d")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_patience_there_is_one_attempt() -> None:
    assert Patience(0, 0).after(NOT_THERE) is None
    assert Patience(0, 0).after(NOBODY) is None


def test_waiting_ends_when_its_time_is_over() -> None:
    clock = Clock()
    patience = Patience(10, 0, clock)
    waited, pauses = 0.0, 0
    while (pause := patience.after(NOT_THERE)) is not None:
        assert 0 < pause <= PAUSES.last
        waited += pause
        pauses += 1
        clock.now += pause
    assert waited == pytest.approx(10)
    assert pauses >= 3


def test_waiting_for_ever() -> None:
    clock = Clock()
    patience = Patience(math.inf, 0, clock)
    for _ in range(1000):
        pause = patience.after(NOBODY)
        assert pause is not None
        clock.now += 3600
    assert pause <= PAUSES.last


def test_time_counts_from_the_last_byte() -> None:
    clock = Clock()
    patience = Patience(10, 0, clock)
    assert patience.after(NOBODY) is not None
    clock.now += 9
    moved(patience)
    assert patience.after(NOBODY) is not None
    clock.now += 9
    assert patience.after(NOBODY) is not None
    clock.now += 2
    assert patience.after(NOBODY) is None


def test_retries_are_counted() -> None:
    patience = Patience(0, 2)
    assert patience.after(NOBODY) is not None
    moved(patience)
    assert patience.after(PeerUnreachable(peer="p", detail="d")) is not None
    assert patience.after(NOBODY) is None


def test_a_name_that_is_not_there_is_waited_for_and_not_tried_again() -> None:
    assert Patience(0, 5).after(NOT_THERE) is None
    assert Patience(1, 0).after(NOT_THERE) is not None


def moved(patience: Patience) -> None:
    """Bytes come."""
    for done in (1, 2):
        patience.hear({"event": "progress", "done": done, "total": 9})


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (HolderGone(name="n", creator="c", noticed="d"), True),
        (MetadataUnavailable(url="u", detail="d"), True),
        (MetadataFull(url="u", detail="d"), False),
        (DestinationExists(path="/p"), False),
    ],
)
def test_what_another_attempt_may_change(error: MooncakeError, again: bool) -> None:
    assert (Patience(10, 10).after(error) is not None) == again


def test_what_was_here_and_what_a_step_counts_is_no_byte_that_came() -> None:
    clock = Clock()
    patience = Patience(10, 0, clock)
    assert patience.after(NOBODY) is not None
    clock.now += 11
    patience.hear({"event": "progress", "done": 5, "total": 9})
    patience.hear({"event": "progress", "step": "copying", "done": 7, "total": 9})
    patience.hear({"event": "note", "text": "done"})
    assert patience.after(NOBODY) is None
