"""The pool as a Python program uses it: values in and out, many at once, into memory, and what errors say."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import Closed, ForkedProcess, UsageError
from p2pstore.kv.client.store import Store
from p2pstore.kv.errors import KeyNotFound, MasterRefused, MasterUnavailable, PoolFull
from tests.forking import in_child
from tests.p2pstore.kv.client.conftest import SEGMENT, MakePeer, MakeStore
from tests.p2pstore.kv.client.masters import AMaster, OurMaster
from tests.p2pstore.kv.client.peers import value_of
from tests.ports import closed_port

SIZES = [1, 2, 3, 255, 256, 4095, 4096, 4097, 65535, 65536, 65537, (1 << 20) - 1, (1 << 20) + 1, 3_000_001]


@pytest.fixture(params=["own memory", "a neighbour", "over TCP"])
def reader(
    request: pytest.FixtureRequest, make_store: MakeStore, make_peer: MakePeer, master: str
) -> Iterator[tuple[Store, Store]]:
    """A store that puts, and one that gets, by each of the three ways."""
    if request.param == "own memory":
        store = make_store(master)
        yield store, store
    else:
        make_peer(master, segment_size=4 * SEGMENT)  # where values lie
        near = request.param == "a neighbour"
        yield make_store(master, segment_size=0, neighbours=near), make_store(master, segment_size=0, neighbours=near)


def test_a_value_of_any_size_comes_back_as_it_was_put(reader: tuple[Store, Store], key: str) -> None:
    putter, getter = reader
    for size in SIZES:
        name = f"{key}-{size}"
        value = value_of(name, size)
        assert putter.put(name, value)
        assert getter.get(name) == value
        room = bytearray(b"\xaa" * (size + 2))
        assert getter.get_into(name, memoryview(room)[1:-1]) == size
        assert room == b"\xaa" + value + b"\xaa"
        assert getter.size(name) == size
        assert getter.get_range(name, size // 2, size - size // 2) == value[size // 2 :]


def test_a_value_of_64_mib_comes_back(make_store: MakeStore, make_peer: MakePeer, key: str, master: str) -> None:
    make_peer(master, segment_size=80 << 20)
    store = make_store(master, segment_size=0, neighbours=False)
    value = os.urandom(1 << 20) * 64
    assert store.put(key, value)
    assert store.get(key) == value


def test_bytes_go_the_way_that_is_nearest(make_store: MakeStore, make_peer: MakePeer, key: str, master: str) -> None:
    owner = make_peer(master)
    near, far = make_store(master, segment_size=0), make_store(master, segment_size=0, neighbours=False)
    assert owner("put", key, 100_000)
    assert near.get(key) == far.get(key) == value_of(key, 100_000)
    assert (near._client.plane.copied, near._client.plane.moved) == (100_000, 0)
    assert (far._client.plane.copied, far._client.plane.moved) == (0, 100_000)


def test_a_key_keeps_its_first_value(store: Store, key: str) -> None:
    assert store.put(key, b"first")
    assert not store.put(key, b"second")
    assert store.put_many([(key, b"third"), (key + "x", b"1"), (key + "x", b"2")]) == [False, True, False]
    assert store.get_many([key, key + "x"]) == [b"first", b"1"]


def test_a_value_is_replaced_where_that_is_asked_for(store: Store, key: str) -> None:
    for value in (b"first", b"second", b"a longer one"):
        assert store.put(key, value, replace=True)
        assert store.get(key) == value


def test_missing_keys_are_told_one_by_one(store: Store, key: str) -> None:
    names = [f"{key}-{number}" for number in range(6)]
    assert store.put_many({name: value_of(name, 5000) for name in names[::2]}) == [True] * 3
    found = store.get_many(names)
    assert found == [value_of(name, 5000) if number % 2 == 0 else None for number, name in enumerate(names)]
    assert store.exists_many(names) == [True, False] * 3
    assert [name in store for name in names[:2]] == [True, False]
    for call in (store.get, store.size, store.remove, store.replicas):
        with pytest.raises(KeyNotFound, match=f"no value under '{names[1]}'") as raised:
            call(names[1])  # type: ignore[operator]
        assert raised.value.exit_code == 3
    assert store.get_many([]) == []
    assert store.put_many({}) == []


def test_all_kinds_of_memory_can_be_put_and_filled(store: Store, key: str) -> None:
    whole = np.arange(24, dtype=np.float64).reshape(4, 6)
    sources = [
        b"bytes",
        bytearray(b"ba"),
        memoryview(b"0123")[1:3],
        array("I", [1, 2, 3]),
        whole,
        np.asfortranarray(whole),
    ]
    for number, source in enumerate(sources):
        assert store.put(f"{key}-{number}", source)
    assert store.get(f"{key}-3") == array("I", [1, 2, 3]).tobytes()
    room = np.empty_like(whole)
    assert store.get_into(f"{key}-4", room) == whole.nbytes
    assert (room == whole).all()
    for bad, why in [("text", "cannot be used as memory"), (whole[:, ::2], "not contiguous"), ([b"x"], "memory")]:
        with pytest.raises(UsageError, match=why):
            store.put(key, bad)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="read-only"):
        store.get_into(f"{key}-0", b"12345")


def test_parts_become_one_value(store: Store, key: str) -> None:
    assert store.put_parts(key, [b"one", b"", np.arange(3, dtype=np.uint8), b"end"])
    assert store.get(key) == b"one\0\1\2end"


def test_memory_that_is_too_small_is_not_touched(store: Store, key: str) -> None:
    store.put(key, value_of(key, 100))
    room = bytearray(99)
    with pytest.raises(UsageError, match="has 100 bytes, and its memory 99"):
        store.get_into(key, room)
    assert room == bytes(99)
    with pytest.raises(UsageError, match="10 bytes at 91"):
        store.get_range(key, 91, 10)


@pytest.mark.parametrize("value", [b"", memoryview(b""), np.empty((0, 3))])
def test_an_empty_value_is_refused(store: Store, key: str, value: bytes) -> None:
    """Upstream's client says of some that they were put, and keeps nothing."""
    with pytest.raises(UsageError, match="is empty"):
        store.put(key, value)
    with pytest.raises(UsageError, match="is empty"):
        store.put_parts(key, [value, value])
    with pytest.raises(UsageError, match="is empty"):
        store.put_many({key: value, key + "y": b"good"})
    assert store.exists_many([key, key + "y"]) == [False, True]


@pytest.mark.parametrize("bad", ["", "nul\0", 5, b"bytes", "\ud800"])
def test_a_key_that_is_none_is_refused(store: Store, bad: str) -> None:
    with pytest.raises(UsageError, match="key"):
        store.put(bad, b"x")


@pytest.mark.parametrize("name", ["line\nfeed", "snowman \u2603 \U0001f40d", "x" * 10_000, "a/b@c:d%20"])
def test_any_text_is_a_key(store: Store, name: str, key: str) -> None:
    assert store.put(name + key, b"value")
    assert store.get(name + key) == b"value"


def test_values_are_removed(store: Store, key: str) -> None:
    for number in range(5):
        store.put(f"{key}-{number}", b"x")
    store.remove(f"{key}-0", force=True)
    assert not store.exists(f"{key}-0")
    assert store.exists(f"{key}-1")
    with pytest.raises(MasterRefused, match=r"refused to remove .*: somebody reads the value.*-706"):
        store.remove(f"{key}-1")
    assert store.remove_matching(f"^{key}-[23]$", force=True) == 2
    assert store.exists_many([f"{key}-{number}" for number in range(5)]) == [False, True, False, False, True]


def test_a_value_that_finds_no_room_is_told_so(make_store: MakeStore, own_master: AMaster, key: str) -> None:
    store = make_store(own_master.address, segment_size=1 << 20)
    with pytest.raises(PoolFull, match=r"no segment has room.*-200") as raised:
        store.put(key, bytes(2 << 20))
    assert raised.value.exit_code == 8
    assert store.put(key, b"a small one")


def test_tensors_keep_type_and_shape(store: Store, key: str) -> None:
    for kind in ("float32", "int8", "bool", "float16", "uint64"):
        tensor = (np.arange(24) % 2).astype(kind).reshape(2, 3, 4)
        assert store.put_tensor(f"{key}-{kind}", tensor)
        found = store.get_array(f"{key}-{kind}")
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert (found == tensor).all()
    store.put(f"{key}-bytes", bytes(500))
    with pytest.raises(UsageError, match="is no tensor"):
        store.get_array(f"{key}-bytes")


def test_keys_of_another_tenant_are_other_keys(make_store: MakeStore, tmp_path: Path, key: str) -> None:
    master = OurMaster(tmp_path / "log", tenants=True)
    try:
        one, other = make_store(master.address), make_store(master.address, tenant="other")
        assert one.put(key, b"one's")
        assert not other.exists(key)
        assert other.put(key, b"the other's")
        assert (one.get(key), other.get(key)) == (b"one's", b"the other's")
        other.remove_all(force=True)
        assert one.get(key) == b"one's"
    finally:
        master.kill()


def test_threads_share_a_store(reader: tuple[Store, Store], key: str) -> None:
    putter, getter = reader
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for turn in range(20):
                name = f"{key}-{thread}-{turn}"
                value = value_of(name, 1 + 7919 * turn)
                assert putter.put(name, value)
                assert getter.get(name) == value
                assert getter.get_many([name, name + "?"]) == [value, None]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


# Life


def test_a_store_without_a_master_says_why_in_bounded_time() -> None:
    began = time.monotonic()
    with pytest.raises(MasterUnavailable, match=r"127\.0\.0\.1:\d+ cannot be used: connection refused") as raised:
        Store(f"127.0.0.1:{closed_port()}", setup_timeout=0.5)
    assert time.monotonic() - began < 60
    assert raised.value.exit_code == 6


def test_what_is_no_master_is_told_from_one(store: Store) -> None:
    """The store's own port speaks another protocol."""
    with pytest.raises(MasterUnavailable, match=r"cannot be used: (no frame begins|it closed|it does not answer)"):
        Store(store.name, setup_timeout=0.1)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"segment_size": 5}, "segment of 5 bytes"),
        ({"segment_size": -1}, "segment's size"),
        ({"checksum": "md5"}, "no checksum is called 'md5'"),
        ({"hostname": ""}, "local hostname"),
        ({"tenant": None}, "tenant"),
    ],
)
def test_a_slip_is_told_at_once(master: str, options: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Store(master, **options)  # type: ignore[arg-type]


def test_after_close_every_call_says_so(make_store: MakeStore, master: str, key: str) -> None:
    store = make_store(master)
    store.close()
    store.close()
    for call in calls(store, key).values():
        with pytest.raises(Closed, match="this Store was closed"):
            call()


def calls(store: Store, key: str) -> dict[str, Callable[[], object]]:
    return {
        "put": lambda: store.put(key, b"x"),
        "put_parts": lambda: store.put_parts(key, [b"x"]),
        "put_many": lambda: store.put_many({key: b"x"}),
        "put_tensor": lambda: store.put_tensor(key, np.zeros(3)),
        "get": lambda: store.get(key),
        "get_many": lambda: store.get_many([key]),
        "get_into": lambda: store.get_into(key, bytearray(9)),
        "get_many_into": lambda: store.get_many_into({key: bytearray(9)}),
        "get_range": lambda: store.get_range(key, 0, 1),
        "get_array": lambda: store.get_array(key),
        "get_tensor": lambda: store.get_tensor(key),
        "exists": lambda: store.exists(key),
        "exists_many": lambda: store.exists_many([key]),
        "size": lambda: store.size(key),
        "replicas": lambda: store.replicas(key),
        "remove": lambda: store.remove(key),
        "remove_matching": lambda: store.remove_matching("x"),
        "remove_all": store.remove_all,
        "why_not": lambda: store.why_not,
        "check": store.check,
    }


def test_every_public_call_is_among_them(store: Store, key: str) -> None:
    public = {name for name, value in vars(Store).items() if callable(value) and not name.startswith("_")}
    assert public - {"close"} <= calls(store, key).keys()


def test_in_a_forked_child_every_call_names_spawn_and_the_parent_goes_on(store: Store, key: str) -> None:
    store.put(key, b"parent's")
    for name, call in calls(store, key).items():
        with pytest.raises(ForkedProcess, match="'spawn'"):
            in_child(call)
        assert name

    def end() -> int:
        store.close()
        gc.collect()
        return 1

    assert in_child(end) == 1
    assert store.get(key) == b"parent's"


def test_a_child_makes_a_store_of_its_own(store: Store, master: str, key: str) -> None:
    store.put(key, b"parent's")

    def child() -> bytes:
        with Store(master, segment_size=0) as made:
            return made.get(key)

    assert in_child(child) == b"parent's"


def test_it_cannot_be_sent_to_another_process(store: Store) -> None:
    for send in (pickle.dumps, copy.copy):
        with pytest.raises(UsageError, match="make one there"):
            send(store)  # type: ignore[operator]


def test_a_close_ends_the_calls_of_other_threads(make_store: MakeStore, own_master: AMaster, key: str) -> None:
    store = make_store(own_master.address)
    store.put(key, b"x")
    own_master.halt()
    outcome: list[object] = []

    def wait() -> None:
        try:
            outcome.append(store.get(key))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not store._client.master._busy:
        time.sleep(0.01)
    store.close()
    thread.join(60)
    assert not thread.is_alive()
    own_master.go_on()
    assert isinstance(outcome[0], Closed)


def test_a_closed_stores_memory_leaves_the_pool(make_store: MakeStore, own_master: AMaster, key: str) -> None:
    one, other = make_store(own_master.address), make_store(own_master.address, segment_size=0)
    one.put(key, b"x")
    assert other.exists(key)
    one.close()
    assert not other.exists(key)
    with pytest.raises(MasterRefused):
        other.put(key, b"y")
