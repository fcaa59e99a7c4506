"""There is one segment of each name, and none is opened once the end has begun."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from engine.errors import Closed
from engine.net.threads import Failure
from engine.transfer.open_segments import OpenSegments


class Peer:
    def __init__(self) -> None:
        self.closed = 0
        self.failures = (Failure("lane", 1, "OSError: x", 0.0),)

    def close(self) -> None:
        self.closed += 1


class Segment:
    """In place of a real one, which would connect."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.peer = Peer()
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1


class World:
    def __init__(self) -> None:
        self.ended = False
        self.made: list[Segment] = []
        self.segments = OpenSegments(self.make, self.check)

    def make(self, name: str) -> Any:
        self.made.append(Segment(name))
        return self.made[-1]

    def check(self) -> None:
        if self.ended:
            raise Closed(what="it")


def test_one_of_each_name_whose_descriptor_is_read_again() -> None:
    world = World()
    one: Any = world.segments.open("a")
    assert one is world.segments.open("a")
    assert one is not world.segments.open("b")
    assert (one.refreshed, len(world.made)) == (1, 2)
    assert world.segments.failures == one.peer.failures * 2


def test_one_that_is_closed_is_another_when_it_is_opened_again() -> None:
    world = World()
    one: Any = world.segments.open("a")
    world.segments.close(one)
    other: Any = world.segments.open("a")
    assert other is not one
    world.segments.close(one)  # again: the new one stays
    assert world.segments.open("a") is other
    assert (one.peer.closed, other.peer.closed) == (2, 0)


def test_two_that_open_at_once_get_the_same() -> None:
    world, begun, found = World(), threading.Barrier(2), []

    def make(name: str) -> Any:
        begun.wait(60.0)
        return world.make(name)

    segments = OpenSegments(make, world.check)
    threads = [threading.Thread(target=lambda: found.append(segments.open("a"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert len(found) == 2
    assert found[0] is found[1]


def test_at_the_end_all_are_taken_and_none_is_opened() -> None:
    world = World()
    one = world.segments.open("a")
    world.ended = True
    with pytest.raises(Closed):
        world.segments.open("b")
    assert world.segments.take_all() == [one]
    assert world.segments.take_all() == []
