"""Puts: their start and end, room for them, and what becomes of one that does not end."""

from __future__ import annotations

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import Kind, Lone, ObjectMeta, ReplicateConfig, Status
from tests.p2pstore.kv.pool.pools import MIB, House, address, ident, upsert


def test_a_value_can_be_read_once_its_put_ended_and_not_before() -> None:
    house = House()
    client = house.join("a")
    (started,) = house.start(client, ["k"])
    assert [replica.status for replica in started] == [Status.PROCESSING]
    assert house.pool.exist(["k"]) == [False]
    assert house.pool.replicas(["k"]) == [Code.NOT_READY]
    assert house.pool.put_end(client, [ObjectMeta("k", 77)]) == [Code.OK]
    (found,) = house.pool.replicas(["k"])
    assert not isinstance(found, Code)
    assert (found.lease_ms, found.checksum) == (10_000, 77)
    assert [replica.place for replica in found.replicas] == [started[0].place]
    assert [replica.status for replica in found.replicas] == [Status.COMPLETE]


def test_an_existing_key_is_refused_as_such() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k"])
    assert house.start(client, ["k"]) == [Code.EXISTS]
    assert house.start(ident("other"), ["k"]) == [Code.EXISTS]


def test_twice_in_one_call_the_first_wins() -> None:
    house = House()
    client = house.join("a")
    first, second = house.start(client, ["k", "k"])
    assert isinstance(first, list)
    assert second is Code.EXISTS


@pytest.mark.parametrize("key", ["x" * 10_000, "y" * MIB, "line\nline", "\N{SNOWMAN}\U0001f600", "a@b/c d%"])
def test_long_and_odd_keys_are_keys(key: str) -> None:
    house = House()
    client = house.join("a")
    assert house.put(client, [key]) == [key]
    assert house.pool.exist([key]) == [True]


@pytest.mark.parametrize("size", [1, 2, 3, 4095, 4097, MIB - 1, MIB + 1])
def test_a_value_has_its_exact_size(size: int) -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k"], size)
    (found,) = house.pool.replicas(["k"])
    assert not isinstance(found, Code)
    assert found.replicas[0].place.size == size


def test_room_is_made_within_the_put_for_the_batch_as_a_whole() -> None:
    house = House()
    client = house.join("a")
    for batch in range(8):
        keys = [f"{batch}-{number}" for number in range(32)]
        assert house.put(client, keys) == keys, "no rest between the batches, and every value is stored"


def places(answers: list[object]) -> set[tuple[str, int]]:
    assert all(isinstance(answer, list) for answer in answers)
    return {(answer[0].place.endpoint, answer[0].place.address) for answer in answers}  # type: ignore[index]


def test_a_batch_is_spread_over_all_segments_and_each_value_has_a_place_of_its_own() -> None:
    house = House()
    clients = [house.join(name, base=(1 + number) << 32) for number, name in enumerate("abc")]
    keys = [str(number) for number in range(90)]
    started = house.start(clients[0], keys)
    found = places(started)
    assert len(found) == 90
    counts = [sum(endpoint == name for endpoint, _ in found) for name in "abc"]
    assert min(counts) > 10, "each client has some of them"
    assert [answer[0].place.size for answer in started] == [MIB] * 90
    assert (
        house.pool.put_end(clients[0], [ObjectMeta(key, number) for number, key in enumerate(keys)]) == [Code.OK] * 90
    )
    read = house.pool.replicas(keys)
    assert [each.checksum for each in read if not isinstance(each, Code)] == list(range(90))
    assert places([each.replicas for each in read if not isinstance(each, Code)]) == found
    assert sum(segment.used for segment in house.pool.segments()) == 90 * MIB


def test_a_batch_leaves_doubted_memory_alone() -> None:
    house = House()
    clients = [house.join(name, base=(1 + number) << 32) for number, name in enumerate("abc")]
    house.pool.suspect("b")
    started = house.start(clients[0], [str(number) for number in range(60)])
    assert {endpoint for endpoint, _ in places(started)} == {"a", "c"}
    assert len(places(started)) == 60


def test_a_batch_of_new_and_old_keys_and_of_several_sizes_is_put_as_far_as_it_is_new() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["old"])
    started = house.pool.put_start(
        client, ["1", "old", "2", "1", "", "3"], [1, 1, 2, 1, 1, 3], ReplicateConfig(), "default"
    )
    assert [answer if isinstance(answer, Code) else answer[0].place.size for answer in started] == [
        1, Code.EXISTS, 2, Code.EXISTS, Code.BAD_PARAMS, 3,
    ]  # fmt: skip
    ends = house.pool.put_end(client, [ObjectMeta(key) for key in ("1", "old", "2", "no such", "2", "3")])
    assert ends == [Code.OK, Code.OK, Code.OK, Code.NOT_FOUND, Code.OK, Code.OK]
    assert house.there(["1", "2", "3", "old"]) == ["1", "2", "3", "old"]
    assert house.pool.stats.key_count == 4
    assert house.pool.stats.value_bytes == MIB + 1 + 2 + 3
    assert sum(house.pool.stats.value_sizes) == 4


def test_one_key_and_a_batch_are_answered_alike() -> None:
    house = House()
    client = house.join("a")
    one = house.pool.put_begin_one(client, "1", MIB, ReplicateConfig())
    (many,) = house.pool.put_begin(client, ["2"], [MIB], ReplicateConfig())
    assert isinstance(one, Lone)
    assert isinstance(many, Lone)
    assert one._replace(id=0, address=0) == many._replace(id=0, address=0)
    assert house.pool.put_end_one(client, ObjectMeta("1", 5)) is Code.OK
    assert house.pool.put_begin_one(client, "1", MIB, ReplicateConfig()) is Code.EXISTS
    assert house.pool.put_begin_one(client, "", MIB, ReplicateConfig()) is Code.BAD_PARAMS
    assert house.pool.put_begin_one(client, "3", 65 * MIB, ReplicateConfig()) is Code.NO_SPACE
    (found,) = house.pool.found(["1"])
    assert isinstance(found, Lone)
    assert house.pool.found_one("1") == found
    assert house.pool.stats.valid_get_nums == house.pool.stats.mem_cache_hit_nums == 2
    assert house.pool.found_one("2") is Code.NOT_READY
    assert house.pool.found_one("no such key") is Code.NOT_FOUND
    assert house.pool.found_one("1", "nobody") == found, "tenants are all the same here"
    assert found.checksum == 5
    assert house.pool.replicas(["1"]) == [(found.replicas, found.lease_ms, 5)]


def test_what_is_said_to_be_there_does_not_make_room_for_the_rest_of_the_call() -> None:
    house = House()
    client = house.join("a", 4 * MIB)
    house.put(client, ["k"])
    house.put(client, ["1", "2", "3"])
    answers = house.start(client, ["k", "new", "more"])
    assert answers[0] is Code.EXISTS
    assert all(isinstance(answer, list) for answer in answers[1:])
    assert house.there(["k", "1", "2", "3"]) == ["k", "3"]


def test_a_put_is_refused_only_if_it_cannot_fit() -> None:
    house = House()
    client = house.join("a")
    keys = [str(number) for number in range(80)]
    assert house.put(client, keys) == keys[:64]
    assert house.start(client, ["larger than the segment"], 65 * MIB) == [Code.NO_SPACE]
    assert len(house.there(keys)) == 64, "what cannot fit evicts nothing"


def test_puts_are_200_while_no_client_gives_memory() -> None:
    house = House()
    assert house.start(ident("a"), ["k"]) == [Code.NO_SPACE]


def test_a_large_put_finds_room_by_steps() -> None:
    house = House()
    client = house.join("a", 8 * MIB)
    small = [str(number) for number in range(2048)]
    house.put(client, small, 4096)
    while house.pool.make_room([8 * MIB]):
        pass
    assert house.put(client, ["large"], 8 * MIB) == ["large"]


def test_only_the_writer_ends_its_put() -> None:
    house = House()
    client = house.join("a")
    house.start(client, ["k"])
    other = ident("other")
    assert house.pool.put_end(other, [ObjectMeta("k")]) == [Code.ILLEGAL_CLIENT]
    assert house.pool.put_revoke(other, ["k"]) == [Code.ILLEGAL_CLIENT]
    assert house.pool.put_end(client, [ObjectMeta("k"), ObjectMeta("none")]) == [Code.OK, Code.NOT_FOUND]
    assert house.pool.put_end(client, [ObjectMeta("k")]) == [Code.OK], "the same end again"
    assert house.pool.put_revoke(client, ["k"]) == [Code.BAD_WRITE]
    assert house.pool.exist(["k"]) == [True]


def test_a_revoked_put_leaves_nothing() -> None:
    house = House()
    client = house.join("a")
    house.start(client, ["k"])
    assert house.pool.put_end(client, [ObjectMeta("k")], Kind.DISK) == [Code.BAD_WRITE]
    assert house.pool.put_revoke(client, ["k", "none"]) == [Code.OK, Code.NOT_FOUND]
    assert house.pool.stats.allocated_bytes == house.pool.stats.key_count == 0
    assert house.put(client, ["k"]) == ["k"]


# -- a writer that does not end


def test_a_second_put_is_never_told_that_a_value_is_there_which_cannot_be_read() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.start(client, ["k"])
    settled = house.pool.settled
    assert house.start(other, ["k"]) == [Code.NOT_READY]
    assert house.start(client, ["k"]) == [Code.NOT_READY], "another thread of the same client is another writer"
    house.pool.put_end(client, [ObjectMeta("k")])
    assert house.pool.settled > settled, "who waits is told to try again"
    assert house.start(other, ["k"]) == [Code.EXISTS]


def test_a_write_is_taken_over_when_its_writers_connection_is_gone() -> None:
    house = House()
    owner, writer, other = house.join("owner"), house.join("writer"), house.join("other")
    before = address(house.start(writer, ["k"], preferred_segment="owner")[0])
    house.pool.lost(writer)
    (taken,) = house.start(other, ["k"], preferred_segment="owner")
    assert address(taken) != before, "the old writer may still be writing there"
    assert house.pool.put_end(writer, [ObjectMeta("k")]) == [Code.ILLEGAL_CLIENT]
    assert house.pool.put_end(other, [ObjectMeta("k")]) == [Code.OK]
    assert house.pool.stats.put_start_discard_cnt == 1
    house.later(601, owner, other)
    assert house.pool.stats.put_start_release_cnt == 1
    assert house.pool.stats.allocated_bytes == MIB


def test_a_write_of_a_client_without_memory_is_taken_over_when_its_connection_is_gone_for_good() -> None:
    """Such a client never pings: its calls are all that is heard of it."""
    house = House()
    other, writer = house.join("other"), ident("writer")
    house.start(writer, ["k", "l"])
    house.pool.lost(ident("nobody"))
    assert house.start(other, ["k"]) == [Code.NOT_READY]
    house.pool.lost(writer)
    assert house.pool.put_end(writer, [ObjectMeta("l")]) == [Code.OK], "it came back"
    assert house.start(other, ["k"]) == [Code.NOT_READY]
    house.pool.lost(writer)
    assert house.put(other, ["k"]) == ["k"]
    assert house.pool.put_end(writer, [ObjectMeta("k")]) == [Code.ILLEGAL_CLIENT]
    assert house.pool._index.lost_writers == set()


def test_a_write_is_taken_over_when_its_writer_missed_its_pings() -> None:
    house = House()
    owner, writer, other = house.join("owner"), house.join("writer"), house.join("other")
    house.start(writer, ["k"], preferred_segment="owner")
    house.later(2, owner, other)
    assert house.start(other, ["k"]) == [Code.NOT_READY]
    house.later(2, owner, other)
    assert house.put(other, ["k"]) == ["k"]


def test_a_write_that_takes_too_long_gives_its_key_up() -> None:
    house = House()
    writer, other = house.join("writer"), house.join("other")
    house.start(writer, ["k"])
    house.later(29, writer, other)
    assert house.start(other, ["k"]) == [Code.NOT_READY]
    house.later(2, writer, other)
    assert house.put(other, ["k"]) == ["k"]


def test_the_same_client_gets_the_same_memory_for_the_same_write_again() -> None:
    """Its two ends cannot be told apart, so no end may make memory readable that was not written."""
    house = House()
    client = house.join("a")
    first = house.start(client, ["k"])
    house.later(31, client)
    assert house.start(client, ["k"]) == first
    assert house.start(client, ["k"]) == [Code.NOT_READY]
    assert house.pool.put_end(client, [ObjectMeta("k")]) == [Code.OK]
    assert house.pool.stats.allocated_bytes == MIB


def test_a_write_that_nobody_takes_over_is_freed_in_the_end() -> None:
    house = House()
    client = house.join("a")
    house.start(client, ["k"])
    house.later(599, client)
    assert house.pool.stats.allocated_bytes == MIB
    house.later(2, client)
    assert house.pool.stats.allocated_bytes == house.pool.stats.key_count == 0


def test_a_put_into_memory_that_went_meanwhile_is_said_to_have_failed() -> None:
    house = House()
    owner, writer = house.join("owner"), house.join("writer")
    house.start(writer, ["k", "l"], preferred_segment="owner")
    house.later(11, writer)
    assert house.pool.put_end(writer, [ObjectMeta("k")]) == [Code.REPLICA_GONE]
    house.pool.unmount(owner, ident("seg-owner"))
    assert house.pool.put_end(writer, [ObjectMeta("l")]) == [Code.NOT_FOUND]
    assert house.pool.exist(["k", "l"]) == [False, False]


# -- upsert


def test_an_upsert_of_a_new_key_is_a_put() -> None:
    house = House()
    client = house.join("a")
    assert isinstance(upsert(house, client, "k")[0], list)
    assert house.pool.upsert_end(client, [ObjectMeta("k")]) == [Code.OK]
    assert house.there(["k"]) == ["k"]


def test_an_upsert_of_the_same_size_has_the_same_memory_if_nobody_reads() -> None:
    house = House()
    client = house.join("a")
    before = house.start(client, ["k"])
    house.pool.put_end(client, [ObjectMeta("k", 1)])
    assert upsert(house, client, "k") == before
    assert house.pool.exist(["k"]) == [False]
    house.pool.upsert_end(client, [ObjectMeta("k", 2)])
    (found,) = house.pool.replicas(["k"])
    assert not isinstance(found, Code)
    assert found.checksum == 2
    assert house.pool.stats.allocated_bytes == MIB


def test_an_upsert_does_not_write_where_somebody_reads() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k"])
    (read,) = house.pool.replicas(["k"])
    assert not isinstance(read, Code)
    started = upsert(house, client, "k")
    assert address(started[0]) != read.replicas[0].place.address  # type: ignore[union-attr]
    house.pool.upsert_end(client, [ObjectMeta("k")])
    assert house.pool.stats.allocated_bytes == 2 * MIB
    house.later(11, client)
    assert house.pool.stats.allocated_bytes == MIB


def test_an_upsert_takes_a_write_of_another_over_at_once_and_waits_for_its_own() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.start(client, ["k"])
    assert upsert(house, client, "k") == [Code.NOT_READY]
    assert isinstance(upsert(house, other, "k")[0], list)
    assert house.pool.put_end(client, [ObjectMeta("k")]) == [Code.ILLEGAL_CLIENT]
    assert house.pool.upsert_end(other, [ObjectMeta("k")]) == [Code.OK]


def test_an_upsert_that_finds_no_room_leaves_what_was_there() -> None:
    house = House()
    client = house.join("a", MIB)
    house.put(client, ["k"])
    house.pool.exist(["k"])
    assert upsert(house, client, "k") == [Code.NO_SPACE]
    assert house.there(["k"]) == ["k"]


# -- limits


def test_the_oldest_keys_make_room_for_new_ones_under_a_quota_of_keys() -> None:
    house = House(max_keys=10)
    client = house.join("a")
    house.put(client, [f"old{number}" for number in range(10)], 1)
    assert house.put(client, ["new"], 1) == ["new"]
    assert house.pool.stats.key_count == 10
    house.pool.exist([f"old{number}" for number in range(10)] + ["new"])
    assert house.start(client, ["more"], 1) == [Code.QUOTA], "all are leased"


def test_long_keys_count_for_the_memory_of_the_index() -> None:
    house = House(max_index_bytes=100_000)
    client = house.join("a")
    house.put(client, ["x" * 90_000], 1)
    house.pool.exist(["x" * 90_000])
    assert house.start(client, ["y" * 90_000], 1) == [Code.QUOTA]
