"""Copies and moves of replicas."""

from __future__ import annotations

import json

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import Status, TaskDone, TaskStatus, TaskType
from p2pstore.kv.pool import tasks
from p2pstore.kv.pool.walks import whole
from tests.p2pstore.kv.pool.pools import MIB, House, ident, segment


@pytest.fixture
def house() -> House:
    made = House(epoch=1e9)
    made.put(made.join("a"), ["k"], preferred_segment="a")
    made.join("b")
    made.join("c")
    return made


A, B = ident("a"), ident("b")


def where(house: House, key: str = "k") -> set[str]:
    looked = house.pool.peek(key)
    return set() if isinstance(looked, Code) else {replica.place.endpoint for replica in looked.replicas}  # type: ignore[union-attr]


def test_a_copy_is_asked_for_fetched_and_carried_out(house: House) -> None:
    task = house.pool.create_copy("k", ["b", "c"])
    assert isinstance(task, bytes)
    assert house.pool.fetch_tasks(B, 16) == []
    (fetched,) = house.pool.fetch_tasks(A, 16)
    assert (fetched.id, fetched.type, fetched.created_ms) == (task, TaskType.COPY, 1_000_001_000_000)
    said = json.loads(fetched.payload)
    assert said == {"tenant_id": "default", "key": "k", "source": "a", "targets": ["b", "c"]}
    plan = house.pool.copy_start(A, "k", "a", ["b", "c"])
    assert not isinstance(plan, Code)
    assert plan.source.place.endpoint == "a"  # type: ignore[union-attr]
    assert [target.status for target in plan.targets] == [Status.PROCESSING] * 2
    assert where(house) == {"a"}, "what is being copied to cannot be read"
    assert house.pool.copy_end(A, "k") is Code.OK
    assert where(house) == {"a", "b", "c"}
    assert house.pool.task_done(A, TaskDone(task, TaskStatus.SUCCESS, "done")) is Code.OK
    known = house.pool.query_task(task)
    assert not isinstance(known, Code)
    assert (known.status, known.client, known.message) == (TaskStatus.SUCCESS, A, "done")


def test_a_move_ends_where_it_was_to_go(house: House) -> None:
    assert isinstance(house.pool.create_move("k", "a", "b"), bytes)
    assert len(house.pool.fetch_tasks(A, 1)) == 1
    plan = house.pool.move_start(A, "k", "a", "b")
    assert not isinstance(plan, Code)
    assert plan.target is not None
    assert house.pool.move_end(A, "k") is Code.OK
    assert where(house) == {"b"}
    assert house.pool.stats.allocated_bytes == MIB


def test_a_reader_of_what_was_moved_has_it_until_its_lease_ends(house: House) -> None:
    house.pool.replicas(["k"])
    house.pool.move_start(A, "k", "a", "b")
    house.pool.move_end(A, "k")
    assert house.pool.stats.allocated_bytes == 2 * MIB
    house.later(11, A, B)
    assert house.pool.stats.allocated_bytes == MIB


def test_a_move_to_where_the_value_is_already_only_takes_the_source_away(house: House) -> None:
    house.pool.copy_start(A, "k", "a", ["b"])
    house.pool.copy_end(A, "k")
    plan = house.pool.move_start(A, "k", "a", "b")
    assert not isinstance(plan, Code)
    assert plan.target is None
    assert house.pool.move_end(A, "k") is Code.OK
    assert where(house) == {"b"}


def test_what_is_being_copied_is_neither_removed_nor_evicted_nor_replaced(house: House) -> None:
    house.pool.copy_start(A, "k", "a", ["b"])
    assert house.pool.remove(["k"], force=True) == [Code.HAS_TASK]
    assert whole(house.pool.remove_all(force=True)) == 0
    assert house.pool.replica_clear(["k"], A) == []
    assert house.pool.copy_start(B, "k", "a", ["c"]) is Code.HAS_TASK
    from engine.rpc.messages import ReplicateConfig

    assert house.pool.upsert_start(A, ["k"], [MIB], ReplicateConfig()) == [Code.HAS_TASK]
    house.later(11, A, B, ident("c"))
    for number in range(250):
        house.put(A, [f"n{number}"])
    assert where(house) == {"a"}
    house.pool.copy_end(A, "k")
    assert where(house) == {"a", "b"}


def test_a_revoked_copy_leaves_nothing(house: House) -> None:
    house.pool.copy_start(A, "k", "a", ["b"])
    assert house.pool.copy_revoke(B, "k") is Code.ILLEGAL_CLIENT
    assert house.pool.move_revoke(A, "k") is Code.BAD_PARAMS
    assert house.pool.copy_revoke(A, "k") is Code.OK
    assert house.pool.copy_revoke(A, "k") is Code.NO_TASK_FOR_KEY
    assert house.pool.stats.allocated_bytes == MIB
    assert house.pool.remove(["k"]) == [Code.OK]


def test_a_copy_that_nobody_ends_is_given_up(house: House) -> None:
    house.pool.copy_start(A, "k", "a", ["b"])
    house.later(601, A, B)
    assert house.pool.stats.allocated_bytes == MIB
    assert house.pool.copy_end(A, "k") is Code.NO_TASK_FOR_KEY
    assert house.pool.remove(["k"]) == [Code.OK]


@pytest.mark.parametrize("gone", ["a", "b"])
def test_a_copy_whose_memory_went_is_said_to_have_failed(house: House, gone: str) -> None:
    house.put(A, ["k2"], preferred_segment="a")
    house.pool.copy_start(A, "k2", "a", ["b"])
    house.pool.unmount(ident(gone), ident(f"seg-{gone}"))
    assert house.pool.copy_end(A, "k2") in {Code.REPLICA_GONE, Code.NOT_FOUND}
    house.ticked()
    assert where(house, "k2") == ({"a"} if gone == "b" else set())
    assert house.pool.stats.allocated_bytes == (2 * MIB if gone == "b" else 0)


def test_memory_that_is_copied_to_is_not_given_away_when_the_value_is_replaced(house: House) -> None:
    plan = house.pool.copy_start(B, "k", "a", ["b"])
    assert not isinstance(plan, Code)
    house.later(12, B, ident("c"))  # the owner of the source is absent
    for number in range(100):
        answer = house.start(ident("c"), ["k" if number == 0 else f"n{number}"])[0]
        if isinstance(answer, list) and answer[0].place.endpoint == "b":
            assert answer[0].place.address != plan.targets[0].place.address  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("none", "a", "b"), Code.NOT_FOUND),
        (("k", "a", "a"), Code.BAD_PARAMS),
        (("k", "a", "x"), Code.BAD_PARAMS),
        (("k", "b", "c"), Code.BAD_PARAMS),
    ],
)
def test_a_move_that_cannot_be_is_refused(house: House, arguments: tuple[str, str, str], code: Code) -> None:
    assert house.pool.create_move(*arguments) is code


def test_a_copy_that_cannot_be_is_refused(house: House) -> None:
    assert house.pool.create_copy("none", ["b"]) is Code.NOT_FOUND
    assert house.pool.create_copy("k", []) is Code.BAD_PARAMS
    assert house.pool.create_copy("k", ["x"]) is Code.BAD_PARAMS
    assert house.pool.copy_start(A, "k", "b", ["c"]) is Code.NO_REPLICA
    assert house.pool.copy_start(A, "k", "a", ["x"]) is Code.NO_SEGMENT
    assert house.pool.move_start(A, "k", "a", "a") is Code.BAD_PARAMS
    house.pool.unmount(B, ident("seg-b"), 5.0)
    assert house.pool.create_copy("k", ["b"]) is Code.BAD_STATUS


def test_a_copy_to_full_segments_takes_room_in_none(house: House) -> None:
    for name in "bc":
        house.pool.mount(ident(name), segment(f"small-{name}", MIB if name == "b" else 64, base=1 << 40))
    used = house.pool.stats.allocated_bytes
    assert house.pool.copy_start(A, "k", "a", ["small-b", "small-c"]) is Code.NO_SPACE
    assert house.pool.stats.allocated_bytes == used


def test_tasks_are_forgotten_in_the_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_TASKS", 2)
    first, _ = house.pool.create_copy("k", ["b"]), house.pool.create_copy("k", ["b"])
    assert house.pool.create_copy("k", ["b"]) is Code.TOO_MANY_TASKS
    house.later(301, A, B)
    known = house.pool.query_task(first)  # type: ignore[arg-type]
    assert not isinstance(known, Code)
    assert (known.status, known.message) == (TaskStatus.FAILED, "its client did not fetch it in time")
    assert house.pool.fetch_tasks(A, 16) == []
    third = house.pool.create_copy("k", ["b"])
    house.pool.fetch_tasks(A, 16)
    house.later(301, A, B)
    assert house.pool.query_task(first) is Code.NO_TASK  # type: ignore[arg-type]
    assert house.pool.query_task(third).message == "nobody ended it in time"  # type: ignore[arg-type, union-attr]


def test_only_who_was_given_a_task_ends_it(house: House) -> None:
    task = house.pool.create_copy("k", ["b"])
    assert isinstance(task, bytes)
    assert house.pool.task_done(B, TaskDone(task, TaskStatus.SUCCESS, "")) is Code.ILLEGAL_CLIENT
    assert house.pool.task_done(A, TaskDone(task, TaskStatus.PENDING, "")) is Code.BAD_PARAMS
    assert house.pool.task_done(A, TaskDone(bytes(16), TaskStatus.FAILED, "")) is Code.NO_TASK
    assert house.pool.task_done(A, TaskDone(task, TaskStatus.FAILED, "x" * 5000)) is Code.OK
    assert house.pool.task_done(A, TaskDone(task, TaskStatus.SUCCESS, "late")) is Code.OK
    known = house.pool.query_task(task)
    assert not isinstance(known, Code)
    assert (known.status, len(known.message)) == (TaskStatus.FAILED, tasks.MAX_MESSAGE)
    assert house.pool.fetch_tasks(A, 16) == []
