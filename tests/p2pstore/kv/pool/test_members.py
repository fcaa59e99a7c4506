"""Clients and their segments: they come, stand still, come back and go."""

from __future__ import annotations

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import ClientStatus, ObjectMeta, Replicas, Segment
from p2pstore.kv.pool.walks import whole
from tests.p2pstore.kv.pool.pools import MIB, House, ident, segment


def test_an_unknown_client_is_asked_to_mount() -> None:
    house = House()
    client = ident("a")
    assert house.pool.ping(client).status == ClientStatus.NEED_REMOUNT
    assert house.pool.remount(client, []) is Code.OK
    assert house.pool.ping(client).status == ClientStatus.OK
    assert house.pool.stats.active_clients == 1


def test_to_mount_the_same_again_is_no_fault() -> None:
    house = House()
    client = house.join("a")
    assert house.pool.mount(client, segment("a")) is Code.OK
    assert house.pool.remount(client, [segment("a")]) is Code.OK
    assert house.pool.stats.total_capacity_bytes == 64 * MIB
    assert house.pool.mount(ident("b"), segment("a")) is Code.SEGMENT_EXISTS
    assert house.pool.mount(client, segment("a", base=1 << 40)) is Code.SEGMENT_EXISTS


@pytest.mark.parametrize(
    ("base", "size"), [(0, MIB), (1 << 32, 0), (1 << 32, 1 << 45), ((1 << 64) - MIB, 2 * MIB), (1 << 65, MIB)]
)
def test_memory_that_cannot_be_is_refused(base: int, size: int) -> None:
    assert House().pool.mount(ident("a"), segment("a", size, base)) is Code.BAD_PARAMS


def test_a_segment_that_claims_more_than_there_is_costs_no_memory_here() -> None:
    house = House()
    house.join("a", 1 << 44)
    assert house.pool.stats.total_capacity_bytes == 1 << 44


def test_no_byte_of_one_process_is_in_two_segments() -> None:
    house = House()
    client = house.join("a")
    again = Segment(ident("other"), "a", (1 << 32) + MIB, MIB, "a")
    assert house.pool.mount(client, again) is Code.SEGMENT_EXISTS


def test_a_process_at_the_address_of_another_takes_its_place() -> None:
    """Two of one name: the one that listens there now is alive, so the other is not."""
    house = House()
    house.put(house.join("a"), ["k"])
    assert house.pool.mount(ident("new"), Segment(ident("s2"), "a", 1 << 32, MIB, "a")) is Code.OK
    assert house.there(["k"]) == []
    assert [each.id for each in house.pool.segments()] == [ident("s2")]


def test_an_unmounted_segment_takes_its_values_along() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, ["both"], replica_num=2)
    house.put(client, ["one"], preferred_segment="a")
    assert house.pool.unmount(client, ident("seg-a")) is Code.OK
    assert house.pool.unmount(client, ident("seg-a")) is Code.OK, "twice is no fault"
    assert house.pool.exist(["both", "one"]) == [True, False]
    house.ticked()
    assert house.pool.stats.key_count == 1
    assert house.pool.stats.allocated_bytes == MIB
    event = house.pool.story.of("one")
    assert event is not None
    assert event.what == "unmounted"
    assert house.pool.unmount(client, ident("seg-b")) is Code.ILLEGAL_CLIENT
    assert house.pool.ping(other).status == ClientStatus.OK


def test_a_segment_with_a_grace_is_read_and_not_written_until_it_goes() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, ["k"], preferred_segment="a")
    assert house.pool.unmount(client, ident("seg-a"), 5.0) is Code.OK
    assert house.start(client, ["l"], preferred_segment="a")[0][0].place.endpoint == "b"
    assert house.there(["k"]) == ["k"]
    house.later(6, client, other)
    assert house.there(["k"]) == []
    assert house.pool.segment("a") is Code.NO_SEGMENT


def test_a_dead_owners_values_are_gone_with_its_time_to_live() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, ["k"], preferred_segment="a")
    house.later(9.5, other)
    assert house.pool.exist(["k"]) == [True]
    house.later(1.5, other)
    assert house.pool.exist(["k"]) == [False]
    assert house.pool.replicas(["k"]) == [Code.NOT_FOUND]
    assert house.pool.stats.total_capacity_bytes == 64 * MIB


@pytest.mark.parametrize("hint", ["its connection is gone", "somebody could not read from it"])
def test_a_hint_is_reason_to_ask_and_to_unmount_early(hint: str) -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, ["k"], preferred_segment="a")
    if hint == "its connection is gone":
        house.pool.lost(client)
    else:
        house.pool.suspect("a")
    house.later(4, other)
    assert house.pool.exist(["k"]) == [False]


def test_who_is_not_connected_and_refuses_connections_is_absent_at_once() -> None:
    """Either alone may be a trouble that passes, or one between two others."""
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, ["k"], preferred_segment="a")
    house.pool.suspect("a", refused=True)
    assert house.there(["k"]) == ["k"]
    house.pool.lost(client)
    assert house.there(["k"]) == []
    assert house.pool.stats.total_capacity_bytes == 64 * MIB
    house.pool.lost(other)
    assert house.pool.stats.total_capacity_bytes == 64 * MIB
    house.pool.ping(other)
    house.pool.suspect("b", refused=True)
    assert house.pool.stats.total_capacity_bytes == 64 * MIB, "it was heard of since"
    house.pool.lost(other)
    assert house.pool.stats.total_capacity_bytes == 0
    assert house.pool.ping(client).status == ClientStatus.NEED_REMOUNT
    assert house.pool.remount(client, [segment("a")]) is Code.OK
    assert house.there(["k"]) == ["k"], "it was taken for dead, and all that it had is here again"


def test_where_a_client_is_in_doubt_nothing_is_put_while_there_is_another() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.pool.suspect("a")
    names = [f"k{number}" for number in range(20)]
    assert house.put(other, names, replica_num=2, preferred_segment="a") == names
    for name in names:
        found = house.pool.peek(name)
        assert isinstance(found, Replicas)
        assert [each.place.endpoint for each in found.replicas] == ["b"]  # type: ignore[union-attr]
    house.pool.suspect("b")
    assert house.put(other, ["for want of another"]) == ["for want of another"]
    house.pool.ping(client)
    house.pool.ping(other)
    (places,) = house.start(other, ["both"], replica_num=2)
    assert len(places) == 2


def test_a_hint_about_a_client_that_pings_is_forgotten() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k"])
    house.pool.suspect("a")
    assert house.pool.segments()[0].status == "SUSPECT"
    house.later(20, client)
    assert house.there(["k"]) == ["k"]
    assert house.pool.segments()[0].status == "OK"


def test_a_slow_start_is_forgiven() -> None:
    house = House()
    client = ident("a")
    house.pool.mount(client, segment("a"))
    house.put(client, ["k"])
    house.later(50)
    assert house.there(["k"]) == ["k"]
    house.later(11)
    assert house.there(["k"]) == []


def test_a_client_that_stood_still_has_its_values_back_when_it_mounts_the_same_memory() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, ["k", "l"], preferred_segment="a")
    used = house.pool.stats.allocated_bytes
    house.later(14, other)
    assert house.pool.exist(["k", "l"]) == [False, False]
    assert house.pool.ping(client).status == ClientStatus.NEED_REMOUNT
    assert house.pool.remount(client, [segment("a")]) is Code.OK
    assert house.pool.exist(["k", "l"]) == [True, True]
    assert house.pool.stats.allocated_bytes == used
    assert house.pool.stats.active_clients == 2


def test_memory_that_came_back_as_other_memory_holds_nothing() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k"])
    house.later(14)
    assert house.pool.remount(client, [segment("a", base=1 << 40)]) is Code.OK
    assert house.there(["k"]) == []
    house.ticked()
    assert house.pool.stats.allocated_bytes == house.pool.stats.key_count == 0


def test_what_a_client_does_not_bring_back_is_gone() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k"])
    house.later(14)
    assert house.pool.remount(client, []) is Code.OK
    assert house.pool.segments() == []


def test_a_new_segment_of_an_absent_client_does_not_bring_the_others_back() -> None:
    """It says first, by a remount, what else it still has."""
    house = House()
    client = house.join("a")
    house.put(client, ["k"])
    house.later(14)
    assert house.pool.mount(client, segment("more")) is Code.OK
    assert house.there(["k"]) == []
    assert house.pool.ping(client).status == ClientStatus.NEED_REMOUNT
    house.pool.remount(client, [segment("a"), segment("more")])
    assert house.there(["k"]) == ["k"]
    assert house.pool.stats.total_capacity_bytes == 128 * MIB


def test_a_key_of_an_absent_client_can_be_put_again_elsewhere() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, ["k"], preferred_segment="a")
    house.later(14, other)
    assert house.put(other, ["k"]) == ["k"]
    house.pool.remount(client, [segment("a")])
    (found,) = house.pool.replicas(["k"])
    assert not isinstance(found, Code)
    assert [replica.place.endpoint for replica in found.replicas] == ["b"]
    assert house.pool.stats.allocated_bytes == MIB


def test_a_removed_key_of_an_absent_client_does_not_come_back_with_it() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k", "l"])
    house.later(14)
    assert house.pool.remove(["k"]) == [Code.NOT_FOUND]
    assert whole(house.pool.remove_all(force=True)) == 0
    house.pool.remount(client, [segment("a")])
    assert house.there(["k", "l"]) == []


def test_an_absent_client_is_forgotten_in_the_end() -> None:
    house = House(keep_absent=20.0)
    client = house.join("a")
    house.put(client, ["k"])
    house.later(40)
    assert house.pool.stats.key_count == 0
    house.pool.remount(client, [segment("a")])
    assert house.there(["k"]) == []


def test_many_values_of_a_lost_segment_are_swept_a_little_at_a_time() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, [str(number) for number in range(5000)], 64, preferred_segment="a")
    house.put(other, ["stays"], preferred_segment="b")
    house.pool.unmount(client, ident("seg-a"))
    steps = 1
    while house.pool.tick():
        steps += 1
    assert steps >= 5
    assert house.pool.stats.key_count == 1
    assert house.pool.keys() == ["stays"]


def test_a_client_is_found_by_its_addresses() -> None:
    house = House()
    client = ident("a")
    house.pool.mount(client, Segment(ident("s"), "n", 1 << 32, MIB, "10.0.0.1:5000"))
    assert house.pool.query_ip(client) == ["10.0.0.1"]
    assert house.pool.query_ip(ident("b")) is Code.CLIENT_UNKNOWN


def test_there_are_no_more_clients_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pstore.kv.pool.members.MAX_CLIENTS", 2)
    house = House()
    house.join("a")
    house.join("b")
    assert house.pool.mount(ident("c"), segment("c")) is Code.QUOTA
    assert house.pool.remount(ident("c"), []) is Code.QUOTA


def test_a_write_to_two_segments_goes_on_when_one_of_them_goes() -> None:
    house = House()
    client = house.join("a")
    house.join("b")
    house.start(client, ["k"], replica_num=2)
    house.pool.unmount(client, ident("seg-a"))
    assert house.pool.put_end(client, [ObjectMeta("k")]) == [Code.OK]
    (found,) = house.pool.replicas(["k"])
    assert not isinstance(found, Code)
    assert [replica.place.endpoint for replica in found.replicas] == ["b"]


def test_many_clients_that_die_at_once_are_found_dead_in_one_look() -> None:
    house = House()
    names = [f"c{number}" for number in range(3000)]
    for number, name in enumerate(names):
        house.join(name, MIB, base=(number + 1) << 32)
    house.put(ident("c7"), ["k"])
    rebuilt = house.pool._index.segments.open
    house.clock.now += 100
    house.pool.tick()
    assert house.pool.stats.active_clients == 0
    assert house.pool._index.segments._open is rebuilt, "which of them take values is not asked for each that dies"
    assert house.start(ident("c7"), ["l"]) == [Code.NO_SPACE]
