"""What a client does when others die: owners of replicas, writers in the middle of a put, the master."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.engine import TransferEngine
from engine.errors import UsageError
from engine.memory.shared import SharedBuffer, SharedMemory
from engine.rpc.codes import Code
from engine.rpc.messages import Memory, ReplicateConfig, Segment
from p2pstore.kv.client import checksums, reading, writing
from p2pstore.kv.client.store import Store
from p2pstore.kv.errors import KeyBusy, KeyNotFound, MasterUnavailable, ValueCorrupt, ValueNotWritten, ValueUnreadable
from tests.clocks import Clock
from tests.p2pstore.kv.client.conftest import MakePeer, MakeStore
from tests.p2pstore.kv.client.masters import AMaster, OurMaster
from tests.p2pstore.kv.client.peers import value_of
from tests.ports import closed_port

WAIT = 60


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def bytes_at(store: Store, place: Memory) -> memoryview:
    """A value's bytes in the memory of the store that has them."""
    view = store._client.plane.in_place(place.endpoint, place.address, place.size)
    assert view is not None
    return view


def places(store: Store, key: str) -> list[Memory]:
    return [each.place for each in store.replicas(key).replicas if isinstance(each.place, Memory)]


# Replicas


@pytest.mark.parametrize("near", [True, False], ids=["neighbours", "over TCP"])
def test_with_one_of_two_replicas_dead_every_read_succeeds(
    own_master: AMaster, make_store: MakeStore, make_peer: MakePeer, near: bool
) -> None:
    lives, dies = (make_peer(own_master.address, neighbours=near) for _ in range(2))
    reader = make_store(own_master.address, segment_size=0, neighbours=near)
    names = [f"key-{number}" for number in range(20)]
    for name in names:
        assert lives("put", name, 10_000, {"replicas": 2}) is True
        assert {place.endpoint for place in places(reader, name)} == {lives.name, dies.name}
    assert reader.get(names[0]) == value_of(names[0], 10_000)
    dies.kill()
    for name in names:
        assert reader.get(name) == value_of(name, 10_000)
    assert reader.get_many(names) == [value_of(name, 10_000) for name in names]


def test_a_dead_endpoint_is_reported_and_left_for_last(
    own_master: AMaster, make_store: MakeStore, make_peer: MakePeer
) -> None:
    lives, dies = (make_peer(own_master.address, neighbours=False) for _ in range(2))
    reader = make_store(own_master.address, segment_size=0, neighbours=False)
    names = [f"key-{number}" for number in range(12)]
    for name in names:
        assert lives("put", name, 1000, {"replicas": 2}) is True
    dies.kill()
    for _ in range(3):
        for name in names:
            assert reader.get(name) == value_of(name, 1000)
    assert set(reader.dead) == {dies.name}
    assert reader.dead[dies.name].times == reader._client.reader.counts.second_tries == 1
    assert "refused" in reader.dead[dies.name].detail


def test_a_value_whose_only_owner_cannot_be_reached_is_told_with_the_owner(
    own_master: AMaster, make_store: MakeStore
) -> None:
    """It pings still, so that neither master takes it for gone."""
    owner = make_store(own_master.address, neighbours=False)
    reader = make_store(own_master.address, segment_size=0, neighbours=False)
    assert owner.put("k", b"x")
    owner._client.plane.close()
    with pytest.raises(ValueUnreadable, match=f"'k' cannot be read: {owner.name}: .*refused") as raised:
        reader.get("k")
    assert raised.value.exit_code == 5
    assert reader.exists("k")


@pytest.fixture
def patient_master(tmp_path: Path) -> Iterator[OurMaster]:
    """One that would wait for a silent client, whatever it is told, for much longer than the test."""
    made = OurMaster(tmp_path / "master.log", client_ttl=3600.0, hinted_ttl=3600.0, lease_ms=100)
    yield made
    made.kill()


def test_our_master_is_told_of_the_dead_and_forgets_them_at_once(
    patient_master: OurMaster, make_store: MakeStore, make_peer: MakePeer
) -> None:
    owner = make_peer(patient_master.address, neighbours=False)
    reader = make_store(patient_master.address, segment_size=0, neighbours=False)
    assert owner("put", "k", 100) is True
    owner.kill()
    with pytest.raises((ValueUnreadable, KeyNotFound)):
        reader.get("k")  # which of them depends on what the master heard first: this, or the end of the connections
    until(lambda: not reader.exists("k"))
    with pytest.raises(KeyNotFound):
        reader.get("k")


def test_our_master_gives_no_memory_of_the_dead_once_it_was_told(
    patient_master: OurMaster, make_store: MakeStore, make_peer: MakePeer
) -> None:
    lives, dies = (make_peer(patient_master.address, neighbours=False) for _ in range(2))
    store = make_store(patient_master.address, segment_size=0, neighbours=False)
    other = make_store(patient_master.address, segment_size=0, neighbours=False)
    dies.kill()
    names = [f"key-{number}" for number in range(64)]
    for name in names:
        assert store.put(name, value_of(name, 100), prefer=[dies.name])
    assert sum(each.times for each in store.dead.values()) <= 1, "it was given dead memory again"
    assert other.put("another's", b"x", prefer=[dies.name])
    assert other.dead == {}
    assert {place.endpoint for name in names for place in places(store, name)} == {lives.name}


def test_neither_master_gets_a_call_that_it_does_not_know(own_master: AMaster, make_store: MakeStore) -> None:
    store = make_store(own_master.address)
    for _ in range(2):
        store._client.master.report_unreachable("127.0.0.1:1", refused=True)
    assert store._client.master.refusals == 0
    assert store.put("k", b"x")


def test_a_report_of_an_endpoint_that_lives_does_no_harm(patient_master: OurMaster, make_store: MakeStore) -> None:
    owner, reporter = make_store(patient_master.address), make_store(patient_master.address, segment_size=0)
    assert owner.put("k", b"x")
    reporter._client.master.report_unreachable(owner.name, refused=True)
    reporter._client.master.report_unreachable("127.0.0.1:1", refused=True)
    assert reporter.get("k") == b"x"
    assert reporter.put("k2", b"y")


def test_a_wrong_replica_is_passed_over_and_counted(own_master: AMaster, make_store: MakeStore) -> None:
    one, other = make_store(own_master.address), make_store(own_master.address)
    reader = make_store(own_master.address, segment_size=0)
    assert one.put("k", value_of("k", 5000), replicas=2)
    (bad,) = [place for place in places(reader, "k") if place.endpoint == other.name]
    bytes_at(other, bad)[4999] ^= 1
    assert [reader.get("k") for _ in range(10)] == [value_of("k", 5000)] * 10
    assert other.get("k") == value_of("k", 5000), "it reads its own memory first, which is wrong"
    assert other._client.reader.counts.wrong == 1
    bytes_at(one, next(place for place in places(reader, "k") if place.endpoint == one.name))[0] ^= 1
    for call in (lambda: reader.get("k"), lambda: reader.get_into("k", bytearray(5000))):
        with pytest.raises(ValueCorrupt, match=r"is not what was put: .*wrong checksum.*wrong checksum") as raised:
            call()
        assert raised.value.exit_code == 4


def test_a_part_is_compared_if_that_is_asked_for(own_master: AMaster, make_store: MakeStore) -> None:
    store = make_store(own_master.address)
    assert store.put("k", value_of("k", 5000))
    for checked in (False, True):
        assert store.get_range("k", 100, 50, checked=checked) == value_of("k", 5000)[100:150]
        with pytest.raises(UsageError, match="50 bytes at 4951 of 'k', which has 5000"):
            store.get_range("k", 4951, 50, checked=checked)
    bytes_at(store, places(store, "k")[0])[4999] ^= 1
    assert store.get_range("k", 100, 50) == value_of("k", 5000)[100:150]
    with pytest.raises(ValueCorrupt):
        store.get_range("k", 100, 50, checked=True)


@pytest.mark.parametrize("size", [5000, 2_000_000])
def test_a_value_whose_place_was_given_to_another_meanwhile_is_asked_for_again(
    own_master: AMaster, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    store = make_store(own_master.address, segment_size=4 << 20)
    assert store.put("k", value_of("k", size))
    before = store.replicas("k")
    store.remove("k", force=True)
    assert store.put("k", value_of("another", size))
    for place in before.replicas:  # wherever the master has put it
        bytes_at(store, place.place)[:] = value_of("another", size)
    master = store._client.master
    ask, stale = master.replicas, [before]
    monkeypatch.setattr(master, "replicas", lambda keys: [stale.pop()] if stale else ask(keys))
    assert store.get("k") == value_of("another", size)
    stale.append(before)
    assert store.get_into("k", bytearray(size)) == size


@pytest.mark.parametrize("made", ["xxh3", "crc64"])
def test_either_checksum_is_taken_for_right(own_master: AMaster, make_store: MakeStore, made: str) -> None:
    one, other = make_store(own_master.address, checksum=made), make_store(own_master.address, segment_size=0)
    assert one.put("k", value_of("k", 100_000))
    expected = getattr(checksums, made)([memoryview(value_of("k", 100_000))])
    assert other.replicas("k").checksum == expected
    assert other.get("k") == value_of("k", 100_000)
    bytes_at(one, places(one, "k")[0])[7] ^= 255
    with pytest.raises(ValueCorrupt):
        other.get("k")
    with_none = make_store(own_master.address, segment_size=0, checksum="none")
    assert with_none.get("k") != value_of("k", 100_000)
    assert with_none.put("unsummed", b"x")
    assert other.replicas("unsummed").checksum is None
    assert other.get("unsummed") == b"x"
    assert other._client.reader.counts.unverified == 1


def test_upstreams_switch_makes_upstreams_checksum(
    own_master: AMaster, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(checksums.UPSTREAMS_SWITCH, "1")
    store = make_store(own_master.address)
    assert store.put("k", b"123456789")
    assert store.replicas("k").checksum == 0x6C40DF5F0B497347


def test_a_read_that_outlasts_its_lease_is_asked_for_again_and_never_passed_off(
    own_master: AMaster, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a checksum nothing else would tell that the place has another value by then."""
    store = make_store(own_master.address, checksum="none")
    assert store.put("k", b"x" * 100)
    client, clock = store._client, Clock()
    read, slow = client.plane.read, [1.0]
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=clock))

    def slowly(pieces: object) -> object:
        if slow:
            clock.now += slow.pop()
        return read(pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(client.plane, "read", slowly)
    assert store.get("k") == b"x" * 100
    assert client.reader.counts.hits == 2
    slow += [1.0, 1.0]
    with pytest.raises(Exception, match=r"-707"):
        store.get("k")


# Puts


def test_a_put_into_dead_memory_goes_elsewhere(own_master: AMaster, make_store: MakeStore, make_peer: MakePeer) -> None:
    """The real master gives dead memory until it misses pings; ours knows of the connections' end, or is told."""
    make_peer(own_master.address, neighbours=False)
    dies = make_peer(own_master.address, neighbours=False)
    store = make_store(own_master.address, segment_size=0, neighbours=False)
    dies.kill()
    names = [f"key-{number}" for number in range(16)]
    for name in names[:8]:
        assert store.put(name, value_of(name, 3000))
    assert store.put_many({name: value_of(name, 3000) for name in names[8:]}) == [True] * 8
    assert store.get_many(names) == [value_of(name, 3000) for name in names]
    if isinstance(own_master, OurMaster):
        assert sum(each.times for each in store.dead.values()) <= 1
    else:
        assert set(store.dead) == {dies.name}, "none of them was given to the dead one"


def test_with_too_few_live_nodes_a_put_has_fewer_replicas(
    own_master: AMaster, make_store: MakeStore, make_peer: MakePeer
) -> None:
    dies = make_peer(own_master.address, neighbours=False)
    store = make_store(own_master.address)
    dies.kill()
    assert store.put("k", b"value", replicas=2)
    assert store.get("k") == b"value"
    assert [place.endpoint for place in places(store, "k")] == [store.name]


def test_a_value_that_can_be_written_nowhere_is_told_with_the_place_and_taken_back(
    own_master: AMaster, make_store: MakeStore
) -> None:
    store = make_store(own_master.address, segment_size=0)
    place = f"127.0.0.1:{closed_port()}"
    lost = Segment(os.urandom(16), place, 1 << 40, 1 << 20, place, "tcp")
    assert store._client.master.mount(lost) is Code.OK
    with pytest.raises(ValueNotWritten, match=f"'k' could not be written: {place}: .*refused"):
        store.put("k", b"value")
    make_store(own_master.address)
    assert store._client.master.unmount(lost.id) is Code.OK
    assert store.put("k", b"value"), "the key was left half put"


def test_an_interrupted_put_leaves_no_half_put_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"interrupted-{os.getpid()}"
    with monkeypatch.context() as patch:
        patch.setattr(store._client.plane, "write", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        for put in (lambda: store.put(key, b"x"), lambda: store.put_many({key: b"x", key + "2": b"y"})):
            with pytest.raises(KeyboardInterrupt):
                put()
    assert store.put_many({key: b"x", key + "2": b"y"}) == [True, True]


def test_while_another_client_writes_a_key_a_put_waits_and_never_says_that_it_is_there(
    own_master: AMaster, make_store: MakeStore, make_peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BUSY_SECONDS", 0.3)
    writer, store = make_peer(own_master.address), make_store(own_master.address)
    assert writer("begin", "k", 100) is True
    for put in (lambda: store.put("k", b"mine"), lambda: store.put_many({"k": b"mine", "other": b"x"})):
        with pytest.raises(KeyBusy, match="another client has begun to put 'k'"):
            put()
    assert store.exists_many(["k", "other"]) == [False, True]
    with pytest.raises(Exception, match="still being written"):
        store.get("k")


def test_a_put_that_waits_for_another_takes_its_place_when_that_is_given_up(
    store: Store, make_store: MakeStore, master: str
) -> None:
    key = f"given up-{os.getpid()}"
    other = make_store(master)
    (granted,) = other._client.master.put_start([key], [5], ReplicateConfig(), replace=False)
    assert isinstance(granted, list)

    def give_up() -> None:
        time.sleep(0.2)
        other._client.master.put_revoke([key], replace=False)

    thread = threading.Thread(target=give_up)
    thread.start()
    assert store.put(key, b"mine")
    thread.join(WAIT)
    assert store.get(key) == b"mine"


# The master


def test_without_the_master_calls_fail_at_once_and_work_again_when_it_is_back(
    own_master: AMaster, make_store: MakeStore
) -> None:
    store = make_store(own_master.address)
    assert store.put("k", b"x")
    before = store._client.heart.remounts
    own_master.kill()
    for _ in range(2):
        for call in (lambda: store.get("k"), lambda: store.put("k2", b"x"), lambda: store.exists("k")):
            with pytest.raises(MasterUnavailable, match=own_master.address):
                call()
    assert store.why_not
    attempts: list[str] = []
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(MasterUnavailable):
            store.exists("k")
        attempts.append(store.why_not)
    assert time.monotonic() - began < WAIT, "a call waits for a master that is known to be gone"
    own_master.start()
    until(lambda: not store.why_not)
    until(lambda: store._client.heart.remounts == before + 1)
    assert store.put("k", b"new")
    assert store.get("k") == b"new"


def test_clients_that_read_once_and_end_leave_our_master_no_doubt_of_their_release(
    own_master: AMaster, make_store: MakeStore
) -> None:
    """It takes an end right after an answer for a sign that the answer could not be read."""
    owner = make_store(own_master.address)
    assert owner.put("k", b"x")
    for _ in range(8):
        with Store(own_master.address, segment_size=0) as store:
            assert store.get("k") == b"x"


def test_a_master_that_stands_still_is_noticed(own_master: AMaster, make_store: MakeStore) -> None:
    store = make_store(own_master.address, segment_size=0)
    own_master.halt()
    with pytest.raises(MasterUnavailable, match="does not answer"):
        store.exists("k")
    until(lambda: store.why_not)
    own_master.go_on()
    until(lambda: not store.why_not)
    assert not store.exists("k")


def test_a_client_without_memory_knows_of_its_master_too(own_master: AMaster, make_store: MakeStore) -> None:
    store = make_store(own_master.address, segment_size=0)
    assert not store.why_not
    own_master.kill()
    until(lambda: store.why_not)
    assert not store.failures


def test_a_client_that_the_master_forgot_mounts_again(
    own_master: AMaster, make_peer: MakePeer, make_store: MakeStore
) -> None:
    peer, other = make_peer(own_master.address), make_store(own_master.address, segment_size=0)
    assert peer("put", "k", 100) is True
    peer.send(signal.SIGSTOP)
    until(lambda: not other.exists("k"))
    peer.send(signal.SIGCONT)

    def put() -> bool:
        try:
            return other.put("k2", b"x")
        except Exception:
            return False

    until(put)
    assert [place.endpoint for place in places(other, "k2")] == [peer.name]


def test_a_master_that_stood_still_for_longer_than_pings_may_be_absent_takes_nobody_for_dead(
    tmp_path: Path, make_peer: MakePeer, make_store: MakeStore
) -> None:
    """As on a machine that slept. What clients had sent is heard before anybody is judged, or they come back at once."""
    master = OurMaster(tmp_path / "log", client_ttl=6.0, lease_ms=100)
    try:
        peer, other = make_peer(master.address), make_store(master.address, segment_size=0)
        assert peer("put", "k", 100) is True
        for _ in range(2):
            master.halt()
            time.sleep(7.0)
            master.go_on()
            until(lambda: not other.why_not and other.exists("k"))
            time.sleep(1.5)  # a pulse and a ping later
            assert other.exists("k")
            assert other.get("k") == value_of("k", 100)
    finally:
        master.kill()


def test_nothing_of_a_mount_that_is_refused_is_left(own_master: AMaster, make_store: MakeStore) -> None:
    store = make_store(own_master.address)
    before = len(store._client.plane.engine._server.descriptor().buffers)
    own_master.kill()
    until(lambda: store.why_not)
    with pytest.raises(MasterUnavailable):
        store._client.mount(1 << 20)
    assert len(store._client.plane.engine._server.descriptor().buffers) == before


def test_memory_given_and_taken_back_while_it_runs(own_master: AMaster, make_store: MakeStore) -> None:
    store = make_store(own_master.address, segment_size=0)
    segment = store._client.mount(4 << 20)
    assert store.put("k", b"x")
    store._client.unmount(segment)
    assert not store.exists("k")
    assert not store._client.plane.offers


def test_memory_stays_in_the_pool_until_the_master_knows_that_it_is_taken_back(
    own_master: AMaster, make_store: MakeStore
) -> None:
    store = make_store(own_master.address, segment_size=0)
    segment = store._client.mount(4 << 20)
    own_master.kill()
    with pytest.raises(MasterUnavailable):
        store._client.unmount(segment)
    own_master.start()
    until(lambda: store._client.heart.remounts)
    assert store.put("k", b"x")
    assert store.get("k") == b"x"
    store._client.unmount(segment)
    assert not store._client.plane.offers


def test_a_peer_that_says_nothing_is_given_up(
    own_master: AMaster, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host is there, and its process stands still: the next replica is read after a bounded time."""
    monkeypatch.setattr("p2pstore.kv.client.plane.STALL_SECONDS", 0.5)
    monkeypatch.setattr("p2pstore.kv.client.plane.CONNECT_SECONDS", 0.5)
    store = make_store(own_master.address, neighbours=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        mute = Segment(os.urandom(16), place, 1 << 40, 1 << 20, place, "tcp")
        assert store._client.master.mount(mute) is Code.OK
        assert store.put("k", b"value", replicas=2)
        assert store.get("k") == b"value"


def test_an_engines_own_memory_is_read_like_a_stores(own_master: AMaster, make_store: MakeStore) -> None:
    """The pool needs no client of ours at the other end: an engine with a segment will do."""
    store = make_store(own_master.address, segment_size=0, neighbours=False)
    with TransferEngine() as engine:
        memory = engine.register_memory(SharedBuffer("s", SharedMemory(1 << 20)), writable=True)
        segment = Segment(os.urandom(16), engine.segment_name, memory.address, 1 << 20, engine.segment_name, "tcp")
        assert store._client.master.mount(segment) is Code.OK
        assert store.put("k", value_of("k", 99_999))
        assert store.get("k") == value_of("k", 99_999)


@pytest.mark.parametrize("near", [True, False], ids=["its memory handed over", "over TCP"])
def test_a_segment_that_claims_more_memory_than_it_has_harms_nobody(
    own_master: AMaster, make_store: MakeStore, near: bool
) -> None:
    """It has 64 KiB and claims a TiB: what is put beyond them is refused by its owner, and goes elsewhere."""
    store = make_store(own_master.address, segment_size=8 << 20, neighbours=near)
    with TransferEngine(hand_over=near) as engine:
        memory = engine.register_memory(SharedBuffer("s", SharedMemory(64 << 10)), writable=True)
        lie = Segment(os.urandom(16), engine.segment_name, memory.address, 1 << 40, engine.segment_name, "tcp")
        assert store._client.master.mount(lie) is Code.OK
        names = [f"k{number}" for number in range(20)]
        for name in names:
            assert store.put(name, value_of(name, 50_000))
        for name in names:
            assert store.get(name) == value_of(name, 50_000)
        assert store._client.name in {place.endpoint for name in names for place in places(store, name)}
    assert not store.failures
