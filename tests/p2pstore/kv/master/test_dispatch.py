"""Each call reaches the pool with its arguments where they belong, and its result counts as what it is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from engine.rpc import messages as m
from engine.rpc.codes import Code
from engine.rpc.methods import CALLS, EXTENSIONS_ASKED, FORMS, METHODS, Extension
from p2pstore.kv.master.dispatch import Counts, counted, handlers, routes
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.settings import PoolSettings
from tests.clocks import Clock

CLIENT, OTHER = b"c" * 16, b"o" * 16
META = m.ObjectMeta("k", 5)
ITEM = m.OffloadItem("t", "k", 5)
STORED = m.StoredObject(1, 2, 3, 4, "h:1")
CONFIG = m.ReplicateConfig()
DONE = m.TaskDone(OTHER, 3, "")
SEGMENT = m.Segment(OTHER, "n", 1, 2, "h:1")


BATCHES = {"exist", "found", "put_begin", "replica_clear", "remove", "evict_disk"} | {
    f"{kind}_{step}" for kind in ("put", "upsert") for step in ("start", "end", "revoke")
}
"""Methods of the pool that answer with a list."""


class Recorder:
    """A pool that tells how it was called."""

    def __getattr__(self, name: str) -> Any:
        def called(*args: Any, **named: Any) -> Any:
            told = (name, *args, named) if named else (name, *args)
            return [told] if name in BATCHES else told

        return called


@pytest.mark.parametrize(
    ("call", "args", "told"),
    [
        ("Ping", (CLIENT,), ("ping", CLIENT)),
        ("MountSegment", (SEGMENT, CLIENT), ("mount", CLIENT, SEGMENT)),
        ("ReMountSegment", ([SEGMENT], CLIENT), ("remount", CLIENT, [SEGMENT])),
        ("UnmountSegment", (OTHER, CLIENT), ("unmount", CLIENT, OTHER)),
        ("GracefulUnmountSegment", (OTHER, CLIENT, 1500), ("unmount", CLIENT, OTHER, 1.5)),
        ("ExistKey", ("k", "t"), ("exists", "k", "t")),
        ("BatchExistKey", (["k"], "t"), [("exist", ["k"], "t")]),
        ("GetReplicaList", ("k", "t"), ("found_one", "k", "t")),
        ("BatchGetReplicaList", (["k"], "t"), [("found", ["k"], "t")]),
        ("GetReplicaListByRegex", ("k.*", "t"), ("replicas_by_regex", "k.*", "t")),
        ("BatchReplicaClear", (["k"], CLIENT, "s"), [("replica_clear", ["k"], CLIENT, "s")]),
        ("PutStart", (CLIENT, "k", 5, CONFIG, "t"), ("put_begin_one", CLIENT, "k", 5, CONFIG, "t")),
        ("PutEnd", (CLIENT, META, 4, "t"), ("put_end_one", CLIENT, META, 4, "t")),
        ("PutRevoke", (CLIENT, "k", 4, "t"), ("put_revoke", CLIENT, ("k",), 4, "t")),
        ("BatchPutStart", (CLIENT, ["k"], [5], CONFIG, "t"), [("put_begin", CLIENT, ["k"], [5], CONFIG, "t")]),
        ("BatchPutEnd", (CLIENT, [META], 4, "t"), [("put_end", CLIENT, [META], 4, "t")]),
        ("BatchPutRevoke", (CLIENT, ["k"], 4, "t"), [("put_revoke", CLIENT, ["k"], 4, "t")]),
        ("UpsertStart", (CLIENT, "k", 5, CONFIG, "t"), ("upsert_start", CLIENT, ("k",), (5,), CONFIG, "t")),
        ("UpsertEnd", (CLIENT, META, 4, "t"), ("upsert_end", CLIENT, (META,), 4, "t")),
        ("UpsertRevoke", (CLIENT, "k", 4, "t"), ("upsert_revoke", CLIENT, ("k",), 4, "t")),
        ("BatchUpsertStart", (CLIENT, ["k"], [5], CONFIG, "t"), [("upsert_start", CLIENT, ["k"], [5], CONFIG, "t")]),
        ("BatchUpsertEnd", (CLIENT, [META], "t"), [("upsert_end", CLIENT, [META], 4, "t")]),
        ("BatchUpsertRevoke", (CLIENT, ["k"], "t"), [("upsert_revoke", CLIENT, ["k"], 4, "t")]),
        ("Remove", ("k", True, "t"), ("remove", ("k",), True, "t")),
        ("BatchRemove", (["k"], True, "t"), [("remove", ["k"], True, "t")]),
        ("RemoveByRegex", ("k.*", True, "t"), ("remove_by_regex", "k.*", True, "t")),
        ("RemoveAll", (True, "t"), ("remove_all", True, "t")),
        ("CreateCopyTask", ("k", "t", ["a"]), ("create_copy", "k", ["a"], "t")),
        ("CreateMoveTask", ("k", "t", "a", "b"), ("create_move", "k", "a", "b", "t")),
        ("QueryTask", (OTHER,), ("query_task", OTHER)),
        ("FetchTasks", (CLIENT, 16), ("fetch_tasks", CLIENT, 16)),
        ("MarkTaskToComplete", (CLIENT, DONE), ("task_done", CLIENT, DONE)),
        ("CopyStart", (CLIENT, "k", "t", "a", ["b"]), ("copy_start", CLIENT, "k", "a", ["b"], "t")),
        ("CopyEnd", (CLIENT, "k", "t"), ("copy_end", CLIENT, "k", "t")),
        ("CopyRevoke", (CLIENT, "k", "t"), ("copy_revoke", CLIENT, "k", "t")),
        ("MoveStart", (CLIENT, "k", "t", "a", "b"), ("move_start", CLIENT, "k", "a", "b", "t")),
        ("MoveEnd", (CLIENT, "k", "t"), ("move_end", CLIENT, "k", "t")),
        ("MoveRevoke", (CLIENT, "k", "t"), ("move_revoke", CLIENT, "k", "t")),
        ("MountLocalDiskSegment", (CLIENT, True), ("mount_disk", CLIENT, True)),
        ("UnmountLocalDiskSegment", (CLIENT,), ("unmount_disk", CLIENT)),
        ("ReportSsdCapacity", (CLIENT, 5), ("report_disk", CLIENT, 5)),
        ("PollRemoveAll", (CLIENT,), ("poll_remove_all", CLIENT)),
        ("OffloadObjectHeartbeat", (CLIENT, True), ("offload_heartbeat", CLIENT, True)),
        ("NotifyOffloadSuccess", (CLIENT, [ITEM], [STORED]), ("offloaded", CLIENT, [ITEM], [STORED])),
        ("PromotionObjectHeartbeat", (CLIENT,), ("promotion_heartbeat", CLIENT)),
        ("PromotionAllocStart", (CLIENT, "k", "t", 5, []), ("promotion_start", CLIENT, "k", 5, [], "t")),
        ("NotifyPromotionSuccess", (CLIENT, "k", "t"), ("promotion_done", CLIENT, "k", "t")),
        ("NotifyPromotionFailure", (CLIENT, "k", "t"), ("promotion_failed", CLIENT, "k", "t")),
        ("EvictDiskReplica", (CLIENT, "k", "t", 2), ("evict_disk", CLIENT, ("k",), 2, "t")),
        ("BatchEvictDiskReplica", (CLIENT, ["k"], "t", 2), [("evict_disk", CLIENT, ["k"], 2, "t")]),
        ("ReportUnreachable", (CLIENT, "h:1", True), ("suspect", "h:1", {"refused": True})),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)  # fmt: skip
def test_a_call_reaches_the_pool(call: str, args: tuple[Any, ...], told: Any) -> None:
    assert len(args) == len(CALLS[call].names)
    assert handlers(Recorder())[call](*args) == told


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("MountNoFSegment", Code.BAD_MODE),
        ("ReMountNoFSegment", Code.BAD_MODE),
        ("UnmountNoFSegment", Code.BAD_MODE),
        ("GetAllNoFSegments", []),
        ("GetNoFSegmentsByName", Code.NO_SEGMENT),
        ("DynamicReplicaCopyStart", Code.BAD_STATUS),
        ("DynamicReplicaCopyEnd", Code.NO_TASK_FOR_KEY),
        ("DynamicReplicaCopyRevoke", Code.NO_TASK_FOR_KEY),
    ],
)
def test_what_is_not_there_is_answered_as_upstream_does_where_it_is_switched_off(call: str, answer: object) -> None:
    assert handlers(Recorder())[call](*[None] * len(METHODS[call].names)) == answer
    for codec in METHODS[call].answers.values():
        assert codec.read(codec.write(answer)) == answer


def test_every_call_of_the_table_is_carried_out() -> None:
    found, counts = routes(Recorder())
    assert {key: route.form for key, route in found.items()} == FORMS
    assert counts.keys() == CALLS.keys()


def test_who_asks_hears_which_calls_of_ours_are_served() -> None:
    assert handlers(Recorder())["QuerySegmentStatus"](EXTENSIONS_ASKED) == Extension.REPORT_UNREACHABLE


def test_what_asks_for_facts_is_answered_from_the_pool() -> None:
    pool = Pool(PoolSettings(), time.monotonic)
    known = handlers(pool)
    pool.mount(CLIENT, m.Segment(OTHER, "n", 1 << 32, 1 << 24, "10.0.0.1:7"))
    assert known["ServiceReady"]() == "2.0.0"
    assert known["GetStorageConfig"]() == m.StorageConfig()
    assert known["GetFsdir"]() == ""
    assert known["BatchQueryIp"]([CLIENT, OTHER]) == {CLIENT: ["10.0.0.1"]}
    assert known["QuerySegmentStatus"]("n") == m.SegmentStatus.OK
    assert known["QuerySegmentStatus"]("m") is Code.NO_SEGMENT
    assert known["QuerySegmentStatusById"](OTHER) == m.SegmentStatus.OK
    assert known["QuerySegmentStatusById"](CLIENT) is Code.NO_SEGMENT


def test_a_route_knows_whether_the_generation_matters() -> None:
    found, _ = routes(Recorder())
    by_form = {route.form: route for route in found.values()}
    exist = by_form[METHODS["ExistKey"].requests["0.3.9"]]
    assert exist.answer is METHODS["ExistKey"].answers["0.3.9"]
    replicas = by_form[METHODS["GetReplicaList"].requests["0.3.9"]]
    assert replicas.answer is None
    assert replicas.answers.keys() == {"0.3.9", "0.3.11"}


@pytest.mark.parametrize(
    ("results", "counts"),
    [
        ([True, False], [0, 0, 0, 2, 0]),
        ([Code.OK, Code.OK], [0, 0, 0, 2, 0]),
        ([Code.OK, Code.LEASED], [0, 0, 1, 2, 1]),
        ([Code.LEASED, Code.NOT_FOUND], [0, 1, 0, 2, 2]),
        ([], [0, 0, 0, 0, 0]),
    ],
)
def test_a_batch_fails_if_all_of_it_does_and_is_partial_if_some_does(results: list[Any], counts: list[int]) -> None:
    found = Counts()
    failed = counted(found, results)
    assert found == counts
    assert failed == [each for each in results if isinstance(each, Code) and each]


@pytest.mark.parametrize(
    ("happened", "status"),
    [
        ("nothing", m.SegmentStatus.OK),
        ("suspected", m.SegmentStatus.OK),
        ("absent", m.SegmentStatus.UNMOUNTING),
        ("closing", m.SegmentStatus.GRACEFULLY_UNMOUNTING),
    ],
)
def test_each_state_of_a_segment_has_upstreams_word(happened: str, status: m.SegmentStatus) -> None:
    clock = Clock()
    pool = Pool(PoolSettings(), clock)
    calls = handlers(pool)
    calls["MountSegment"](m.Segment(OTHER, "n", 1 << 20, 1 << 20, "h:1"), CLIENT)
    if happened == "suspected":
        pool.suspect("h:1")
    elif happened == "absent":
        clock.now += 100
        pool.tick()
    elif happened == "closing":
        pool.unmount(CLIENT, OTHER, 10.0)
    assert calls["QuerySegmentStatus"]("n") == status
    assert calls["QuerySegmentStatusById"](OTHER) == status
    assert calls["QuerySegmentStatus"]("none") is calls["QuerySegmentStatusById"](CLIENT) is Code.NO_SEGMENT
