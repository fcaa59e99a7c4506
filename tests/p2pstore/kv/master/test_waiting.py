"""Puts that wait for another's write, or for room, and when their waiting is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import Memory, Replica, ReplicateConfig
from engine.rpc.methods import METHODS
from p2pstore.kv.master import waiting as w
from p2pstore.kv.master.dispatch import Counts, Route
from p2pstore.kv.master.limits import WAIT_S
from p2pstore.kv.master.waiting import Waiting, WaitingRoom

PLACE = [Replica(1, Memory(1, 2, "tcp", "h:1"), 2)]


class World:
    """A pool that answers by script, and a clock of the test's."""

    def __init__(self) -> None:
        self.now = 100.0
        self.settled = 0
        self.answers: dict[str, list[Any]] = {}
        """What each key gets, one after another; the last stays."""
        self.room: list[bool] = []
        self.asked: list[tuple[list[str], list[int], Any]] = []
        self.done: list[Waiting] = []
        self.waiting = WaitingRoom(lambda: self.now, self.make_room, lambda: self.settled, self.done.append)

    def make_room(self, sizes: Sequence[int]) -> bool:
        return self.room.pop(0) if self.room else False

    def start(self, _: bytes, keys: Any, sizes: Any, config: ReplicateConfig, __: str) -> Any:
        alone = isinstance(keys, str)
        keys = [keys] if alone else list(keys)
        self.asked.append((keys, sizes, config.group_ids))
        found = [self.answers[key].pop(0) if len(self.answers[key]) > 1 else self.answers[key][0] for key in keys]
        return found[0] if alone else found

    def call(self, keys: Any, sizes: Any, to: str = "c", groups: list[str] | None = None) -> Waiting:
        name = "PutStart" if isinstance(keys, str) else "BatchPutStart"
        route = Route(METHODS[name].requests["0.3.13"], self.start, Counts())
        args = (b"", keys, sizes, ReplicateConfig(group_ids=groups), "default")
        found = self.start(*args)
        return Waiting(to, 1, route, args, found if route.many else [found])


def test_a_put_waits_for_another_write_of_its_key() -> None:
    world = World()
    world.answers = {"k": [Code.NOT_READY, Code.NOT_READY, PLACE]}
    call = world.call("k", 5)
    assert world.waiting.takes(call)
    assert world.waiting.try_again() == w.TRY_S
    assert len(world.asked) == 2, "nothing has changed since"
    world.settled = 1
    assert world.waiting.try_again() is None
    assert world.done == [call]
    assert call.result == PLACE


def test_it_looks_again_though_no_write_has_ended() -> None:
    """The writer may be taken for gone."""
    world = World()
    world.answers = {"k": [Code.NOT_READY, Code.NOT_READY, PLACE]}
    world.waiting.takes(world.call("k", 5))
    world.now += w.PATIENT_S
    assert world.waiting.try_again() is None
    assert world.done[0].result == PLACE


def test_it_does_not_wait_for_ever() -> None:
    world = World()
    world.answers = {"k": [Code.NOT_READY]}
    assert world.waiting.takes(world.call("k", 5))
    world.now += WAIT_S
    assert world.waiting.try_again() is None
    assert world.done[0].result is Code.NOT_READY


def test_of_a_batch_only_what_is_missing_is_asked_for_again() -> None:
    world = World()
    world.answers = {"a": [PLACE], "b": [Code.NOT_READY, Code.NOT_READY, PLACE], "c": [Code.EXISTS]}
    call = world.call(["a", "b", "c"], [1, 2, 3], groups=["x", "y", "z"])
    assert world.waiting.takes(call)
    assert world.asked[-1] == (["b"], [2], ["y"])
    world.settled = 1
    world.waiting.try_again()
    assert call.result == [PLACE, PLACE, Code.EXISTS]


def test_room_is_made_step_by_step() -> None:
    world = World()
    world.answers = {"k": [Code.NO_SPACE, PLACE]}
    world.room = [True, True, False]
    call = world.call("k", 5)
    assert world.waiting.takes(call)
    assert call.hurries
    assert world.waiting.try_again() == 0.0
    assert len(world.asked) == 1, "it is put only once room was made"
    assert world.waiting.try_again() is None
    assert call.result == PLACE


def test_where_no_room_can_be_made_the_put_is_refused_at_once() -> None:
    world = World()
    world.answers = {"k": [Code.NO_SPACE]}
    call = world.call("k", 5)
    assert not world.waiting.takes(call)
    assert call.result is Code.NO_SPACE


def test_want_of_room_does_not_hold_up_what_waits_for_a_write() -> None:
    world = World()
    world.answers = {"a": [Code.NO_SPACE], "b": [Code.NOT_READY, Code.NOT_READY, PLACE]}
    call = world.call(["a", "b"], [1, 2])
    assert world.waiting.takes(call)
    assert not call.hurries
    world.settled = 1
    world.waiting.try_again()
    assert call.result == [Code.NO_SPACE, PLACE]


def test_who_is_gone_waits_no_more() -> None:
    world = World()
    world.answers = {"k": [Code.NOT_READY]}
    world.waiting.takes(world.call("k", 5, to="gone"))
    world.waiting.takes(world.call("k", 5, to="there"))
    world.waiting.left("gone")
    assert len(world.waiting) == 1


def test_so_many_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(w, "MAX_WAITING", 1)
    world = World()
    world.answers = {"k": [Code.NOT_READY]}
    assert world.waiting.takes(world.call("k", 5))
    assert not world.waiting.takes(world.call("k", 5))


def test_so_many_bytes_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(w, "MAX_WAITING_BYTES", 3 * (w.KEY_BYTES + 1000))
    world = World()
    keys = [letter * 1000 for letter in "abc"]
    world.answers = {key: [Code.NOT_READY, Code.NOT_READY, PLACE] for key in keys} | {"k": [Code.NOT_READY]}
    assert world.waiting.takes(world.call(keys[:2], [1, 1]))
    assert world.waiting.takes(world.call(keys[2], 1, to="gone"))
    assert not world.waiting.takes(world.call("k", 1))
    world.waiting.left("gone")
    assert world.waiting.takes(world.call("k", 1, to="gone"))
    world.waiting.left("gone")
    world.settled = 1
    world.waiting.try_again()
    assert len(world.waiting) == 0
    world.answers = {key: [Code.NOT_READY] for key in keys}
    assert world.waiting.takes(world.call(keys, [1, 1, 1])), "what was done takes nothing any more"


def test_of_many_each_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(w, "MAX_TRIED", 2)
    world = World()
    world.answers = {"k": [Code.NOT_READY]}
    for _ in range(5):
        world.waiting.takes(world.call("k", 5))
    world.answers = {"k": [PLACE]}
    world.settled = 1
    while world.waiting.try_again() is not None:
        assert len(world.done) <= 5
    assert len(world.done) == 5
