"""The store as engines see it: what is slow, gone or wrong is a miss in time, and never touches their memory."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from p2pstore.integrations import patient_store, staging
from p2pstore.integrations.patient_store import LATE, LOOKUP_SECONDS, PatientStore
from p2pstore.kv.client import device_memory, line
from p2pstore.kv.client.compat import MooncakeDistributedStore
from p2pstore.kv.client.compat_types import ReplicateConfig
from tests.p2pstore.kv.client.masters import OurMaster
from tests.p2pstore.kv.client.test_device_memory import FIRST, Drawer
from tests.ports import reserved_port

SEGMENT = 32 << 20
LONG = 60.0

SLOW_MACHINE = LONG
"""Seconds that a busy machine may add, by far less than any wait of the client's own would."""

_numbers = count()


class Blocks:
    """Memory in pieces, as a cache has it: two for each block."""

    def __init__(self, blocks: int, size: int = 5000) -> None:
        self.data = (ctypes.c_ubyte * (2 * blocks * size))()
        base = ctypes.addressof(self.data)
        self.pointers = [[base + n * size, base + (blocks + n) * size] for n in range(blocks)]
        self.sizes = [[size, size] for _ in range(blocks)]

    def fill(self, seed: int) -> Blocks:
        self.data[:] = bytes((seed + n * 31) % 251 for n in range(len(self.data)))
        return self


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurMaster]:
    made = OurMaster(tmp_path_factory.mktemp("master") / "log")
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def saves(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have the time that a slow day takes."""
    monkeypatch.setattr(patient_store, "SAVE_SECONDS", LONG)


@pytest.fixture
def keys() -> list[str]:
    number = next(_numbers)
    return [f"patient-{os.getpid()}-{number}-{n}" for n in range(7)]


@pytest.fixture
def stores() -> Iterator[list[PatientStore]]:
    made: list[PatientStore] = []
    yield made
    for each in made:
        each.close()


def joined(stores: list[PatientStore], address: str) -> PatientStore:
    made = PatientStore()
    stores.append(made)
    assert made.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT, SEGMENT, "tcp", "", address) == 0, made.last_error
    return made


def patient(store: PatientStore) -> PatientStore:
    """With the time that a slow day takes, for tests that are about something else."""
    store.seconds = LONG
    return store


@pytest.mark.parametrize("window", [1 << 20, 25_000])
def test_blocks_in_and_out(
    shared: OurMaster, stores: list[PatientStore], keys: list[str], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "WINDOW_BYTES", window)
    store = patient(joined(stores, shared.address))
    ours, theirs = Blocks(7).fill(3), Blocks(7)
    config = ReplicateConfig()
    config.group_ids = [f"group {n}" for n in range(7)]
    assert store.batch_put_from_multi_buffers(keys, ours.pointers, ours.sizes, config) == [0] * 7
    assert config.group_ids is not None
    assert len(config.group_ids) == 7
    assert store.batch_is_exist([*keys, "no"]) == [1] * 7 + [0]
    found = store.batch_get_into_multi_buffers([*keys[:-1], "no"], theirs.pointers, theirs.sizes)
    assert found[:-1] == [10_000] * 6
    assert found[-1] < 0
    half = len(ours.data) // 2
    for part in (slice(0, half - 5000), slice(half, half * 2 - 5000)):
        assert bytes(theirs.data[part]) == bytes(ours.data[part])
    assert not any(theirs.data[half - 5000 : half])


def test_a_value_of_another_size_is_wrong_and_touches_nothing(
    shared: OurMaster, stores: list[PatientStore], keys: list[str]
) -> None:
    """As one of another type is."""
    store = patient(joined(stores, shared.address))
    small = Blocks(1, 2500).fill(1)
    assert store.batch_put_from_multi_buffers(keys[:1], small.pointers, small.sizes) == [0]
    room = Blocks(1)
    assert store.batch_get_into_multi_buffers(keys[:1], room.pointers, room.sizes) == [-600]
    assert not any(room.data)
    assert "5000 bytes, and its memory 10000" in store.last_error


def test_memory_of_one_piece_may_be_larger_than_its_value(
    shared: OurMaster, stores: list[PatientStore], keys: list[str]
) -> None:
    """As with upstream's class: LMCache reads chunks so that may not be full."""
    store = patient(joined(stores, shared.address))
    values = [bytes([n + 1]) * (1000 + n) for n in range(3)]
    for key, value in zip(keys, values, strict=False):
        assert store.put(key, value) == 0
    room = Blocks(2)
    pointers = [room.pointers[0][0], room.pointers[1][0], room.pointers[0][1], room.pointers[1][1]]
    found = store.batch_get_into([*keys[:3], "no"], pointers, [5000, 1001, 1001, 5000])
    assert found[:2] == [1000, 1001]
    assert (found[2], found[3]) == (-600, -704)
    assert bytes(room.data[:1001]) == values[0] + b"\0"
    assert bytes(room.data[5000:6002]) == values[1] + b"\0"
    assert not any(room.data[10_000:])
    assert store.batch_get_into(keys[:2], pointers[:1], [5000]) == [-600, -600]
    assert store.batch_get_into([], [], []) == []


def test_wrong_bytes_are_a_miss_and_touch_nothing(
    shared: OurMaster, stores: list[PatientStore], keys: list[str]
) -> None:
    store = patient(joined(stores, shared.address))
    blocks = Blocks(1).fill(7)
    config = ReplicateConfig()
    config.preferred_segment = store.get_hostname()
    assert store.batch_put_from_multi_buffers(keys[:1], blocks.pointers, blocks.sizes, config) == [0]
    assert store._client is not None
    (_, _, segment), *_ = store._client.plane._own
    at = bytes(segment).index(bytes(blocks.data))
    segment[at + 9999] ^= 1
    room = Blocks(1)
    assert store.batch_get_into_multi_buffers(keys[:1], room.pointers, room.sizes) == [-801]
    assert not any(room.data)


def test_a_master_that_stands_still_is_a_miss_in_time_and_then_at_once(
    master: OurMaster, stores: list[PatientStore], keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "CALL_SECONDS", 10 * LONG)
    store = joined(stores, master.address)
    blocks = Blocks(7).fill(2)
    master.halt()
    began = time.monotonic()
    assert all(each < 0 for each in store.batch_is_exist(keys))
    assert time.monotonic() - began < LOOKUP_SECONDS + SLOW_MACHINE
    began, seconds = time.monotonic(), store.seconds
    store.seconds = 10 * LONG  # which none of these takes
    for _ in range(100):
        assert all(each < 0 for each in store.batch_is_exist(keys))
    assert time.monotonic() - began < SLOW_MACHINE
    store.seconds = seconds
    assert all(each < 0 for each in store.batch_get_into_multi_buffers(keys, blocks.pointers, blocks.sizes))
    master.go_on()
    _until(lambda: store.batch_is_exist(keys) == [0] * 7)
    _until(lambda: store.batch_put_from_multi_buffers(keys, blocks.pointers, blocks.sizes) == [0] * 7)
    _until(lambda: store.batch_is_exist(keys) == [1] * 7)


def test_a_load_that_comes_too_late_touches_nothing(
    shared: OurMaster, stores: list[PatientStore], keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = joined(stores, shared.address)
    blocks, room = Blocks(7).fill(5), Blocks(7)
    assert store.batch_put_from_multi_buffers(keys, blocks.pointers, blocks.sizes) == [0] * 7
    go, done = threading.Event(), threading.Event()
    read = store._read

    def slow(*args: object) -> list[int]:
        go.wait(LONG)
        found = read(*args)  # type: ignore[arg-type]
        done.set()
        return found

    monkeypatch.setattr(store, "_read", slow)
    assert store.batch_get_into_multi_buffers(keys, room.pointers, room.sizes) == [LATE] * 7
    assert store.batch_get_into_multi_buffers(keys, room.pointers, room.sizes) == [LATE] * 7
    go.set()
    assert done.wait(LONG)
    assert not any(room.data)
    store.seconds = LONG
    _until(lambda: store.batch_get_into_multi_buffers(keys, room.pointers, room.sizes) == [10_000] * 7)
    assert bytes(room.data) == bytes(blocks.data)


def test_a_save_that_is_late_puts_what_was_there(
    shared: OurMaster, stores: list[PatientStore], keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks are others' by the time that it is sent."""
    monkeypatch.setattr(patient_store, "SAVE_SECONDS", 0.01)
    store = joined(stores, shared.address)
    blocks = Blocks(7).fill(6)
    before = bytes(blocks.data)
    go = threading.Event()
    write = store._write

    def slow(*args: object, **kwargs: object) -> list[int]:
        go.wait(LONG)
        return write(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "_write", slow)
    assert store.batch_put_from_multi_buffers(keys, blocks.pointers, blocks.sizes) == [LATE] * 7
    blocks.fill(99)
    go.set()
    store.seconds = LONG
    _until(lambda: store.batch_is_exist(keys) == [1] * 7)
    room = Blocks(7)
    assert store.batch_get_into_multi_buffers(keys, room.pointers, room.sizes) == [10_000] * 7
    assert bytes(room.data) == before


def test_a_master_that_comes_later(
    stores: list[PatientStore], keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pstore.kv.client.compat.SETUP_SECONDS", 0.1)
    monkeypatch.setattr("tests.p2pstore.kv.client.masters.reserved_port", lambda: port)
    port = reserved_port()
    store = patient(joined(stores, f"127.0.0.1:{port}"))
    blocks = Blocks(7).fill(1)
    assert all(each < 0 for each in store.batch_is_exist(keys))
    assert all(each < 0 for each in store.batch_put_from_multi_buffers(keys, blocks.pointers, blocks.sizes))
    master = OurMaster(tmp_path / "log")
    try:
        _until(lambda: store.batch_put_from_multi_buffers(keys, blocks.pointers, blocks.sizes) == [0] * 7)
        store.close()
    finally:
        master.kill()


def test_who_leaves_before_the_master_comes_does_not_come_back(
    stores: list[PatientStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pstore.kv.client.compat.SETUP_SECONDS", 0.1)
    store = joined(stores, f"127.0.0.1:{reserved_port()}")
    joiner = store._joiner
    assert joiner is not None
    store.close()
    joiner.join(LONG)
    assert not joiner.is_alive()
    assert store.health_check() == 1


def test_who_is_set_up_again_keeps_what_was_joined_then(
    shared: OurMaster, stores: list[PatientStore], keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though an attempt to join the first pool ends later."""
    monkeypatch.setattr("p2pstore.kv.client.compat.SETUP_SECONDS", 0.1)
    monkeypatch.setattr(patient_store, "JOIN_EVERY", 0.01)
    attempted, go_on = threading.Event(), threading.Event()

    class Slow(MooncakeDistributedStore):
        def setup(self, *args: object, **kwargs: object) -> int:
            attempted.set()
            assert go_on.wait(LONG)
            return super().setup(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(patient_store, "MooncakeDistributedStore", Slow)
    store = patient(joined(stores, f"127.0.0.1:{reserved_port()}"))
    joiner = store._joiner
    assert joiner is not None
    assert attempted.wait(LONG)
    monkeypatch.setattr("p2pstore.kv.client.compat.SETUP_SECONDS", LONG)
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT, SEGMENT, "tcp", "", shared.address) == 0
    monkeypatch.setattr("p2pstore.kv.client.compat.SETUP_SECONDS", 0.1)
    go_on.set()
    joiner.join(LONG)
    assert not joiner.is_alive()
    assert store.batch_is_exist(keys) == [0] * 7


def test_what_is_wrong_with_the_settings_is_said_at_once() -> None:
    assert PatientStore().setup("127.0.0.1", "P2PHANDSHAKE", "much", SEGMENT, "tcp", "", "127.0.0.1:1") == -600


@pytest.mark.parametrize(
    ("text", "seconds"), [("", LOOKUP_SECONDS), ("2.5", 2.5), ("soon", LOOKUP_SECONDS), ("-1", LOOKUP_SECONDS)]
)
def test_patience_can_be_set(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONCAKE_PATIENCE", text)
    assert PatientStore().seconds == seconds


def test_a_gpus_memory_is_copied_by_its_driver(
    shared: OurMaster, stores: list[PatientStore], keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawer = Drawer()
    monkeypatch.setattr(device_memory, "_driver", drawer)
    store = patient(joined(stores, shared.address))
    value = os.urandom(3000)
    drawer.memory[:3000] = value
    pieces, sizes = [[FIRST, FIRST + 2000]], [[2000, 1000]]
    assert store.batch_put_from_multi_buffers(keys[:1], pieces, sizes) == [0]
    assert store.get(keys[0]) == value
    there = [[FIRST + 9000, FIRST + 5000]]
    assert store.batch_get_into_multi_buffers(keys[:1], there, sizes) == [3000]
    assert (bytes(drawer.memory[9000:11000]), bytes(drawer.memory[5000:6000])) == (value[:2000], value[2000:])
    outside = [[FIRST, FIRST + len(drawer.memory) - 10]]
    assert store.batch_put_from_multi_buffers(keys[1:2], outside, sizes) == [-600]
    assert store.batch_put_from_multi_buffers(keys[1:2], pieces, sizes) == [0], "the memory between is free again"


def test_slips_are_codes_for_each_key(shared: OurMaster, stores: list[PatientStore]) -> None:
    store = joined(stores, shared.address)
    assert store.batch_get_into_multi_buffers(["a", "b"], [[1]], [[1]]) == [-600, -600]
    assert store.batch_put_from_multi_buffers(["a"], [[1, 2]], [[1]]) == [-600]
    assert store.batch_put_from_multi_buffers([], [], []) == []


def _until(true: object) -> None:
    end = time.monotonic() + LONG
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)
