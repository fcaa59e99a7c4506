"""The plug-in for LMCache, on our master, with LMCache's classes made small. ``tests/serving`` has the real ones."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pstore.kv.client.store import Store
from tests.p2pstore.integrations import fake_lmcache as fake
from tests.p2pstore.integrations.conftest import AS_EVER, FOREVER, SLOW
from tests.p2pstore.integrations.fake_lmcache import Chunk, Config, Context, Key, LocalBackend, Metadata
from tests.p2pstore.kv.client.masters import OurMaster
from tests.ports import closed_port

Make = Callable[..., Any]


@pytest.fixture
def plugin() -> Iterator[Any]:
    with fake.installed():
        yield importlib.import_module("p2pstore.integrations.lmcache")


@pytest.fixture
def make(plugin: Any, waits: None, master: OurMaster) -> Iterator[Make]:
    made: list[Any] = []

    def make_(metadata: Metadata | None = None, room: int = 1000, **said: Any) -> Any:
        extra = {
            "mooncake_master_server_address": master.address,
            "mooncake_global_segment_size": "16mb",
            **{name if name == "save_chunk_meta" else f"mooncake_{name}": value for name, value in said.items()},
        }
        metadata = metadata or Metadata()
        context = Context(Config(extra), LocalBackend(metadata, room), metadata)
        made.append(plugin.MooncakeAdapter().create_connector(context))
        return made[-1]

    yield make_
    for connector in made:
        asyncio.run(connector.close())


def chunk_of(number: int, metadata: Metadata | None = None, tokens: int = fake.TOKENS) -> Chunk:
    metadata = metadata or Metadata()
    shape = list(metadata.get_shapes()[0])
    shape[2] = tokens
    chunk = Chunk([fake.Size(shape)], metadata.get_dtypes(), fake.KV_2LTD)
    chunk.memory[:] = bytes((number * 7 + at) % 251 for at in range(chunk.used))
    return chunk


def put(connector: Any, *numbers: int, **how: Any) -> None:
    asyncio.run(connector.batched_put([Key(number) for number in numbers], [chunk_of(n, **how) for n in numbers]))


def keys(*numbers: int) -> list[Key]:
    return [Key(number) for number in numbers]


def test_lmcache_finds_it_by_the_name_of_the_plugin(plugin: Any) -> None:
    adapter = plugin.MooncakeAdapter()
    assert adapter.can_parse("plugin://mooncake")
    assert adapter.can_parse("plugin://mooncake.second")
    assert not adapter.can_parse("plugin://mooncakestore")
    assert not adapter.can_parse("redis://mooncake")


@pytest.mark.parametrize("meta", [True, False], ids=["metadata in the value", "metadata of the engine"])
def test_what_one_engine_put_another_gets(make: Make, meta: bool) -> None:
    writer, reader = make(save_chunk_meta=meta), make(save_chunk_meta=meta)
    put(writer, 1, 2)
    one, two = asyncio.run(reader.batched_get(keys(1, 2)))
    assert bytes(one.byte_array) == bytes(chunk_of(1).byte_array)
    assert bytes(two.byte_array) == bytes(chunk_of(2).byte_array)
    assert bytes(asyncio.run(reader.get(Key(2))).byte_array) == bytes(chunk_of(2).byte_array)


@pytest.mark.parametrize("meta", [True, False])
def test_a_chunk_that_is_not_full_keeps_its_length(make: Make, meta: bool) -> None:
    writer, reader = make(save_chunk_meta=meta), make(save_chunk_meta=meta)
    asyncio.run(writer.put(Key(5), chunk_of(5, tokens=3)))
    found = asyncio.run(reader.get(Key(5)))
    assert found.get_shapes()[0][2] == 3
    assert bytes(found.byte_array) == bytes(chunk_of(5, tokens=3).byte_array)


def test_nothing_is_returned_behind_a_hole_and_no_memory_is_kept_for_it(make: Make) -> None:
    connector = make()
    put(connector, 1, 2, 4, 5)
    assert connector.batched_contains(keys(1, 2, 3, 4)) == 2
    assert asyncio.run(connector.batched_async_contains("lookup", keys(1, 2, 3, 4))) == 2
    found = asyncio.run(connector.batched_get(keys(1, 2, 3, 4, 5)))
    assert [each is not None for each in found] == [True, True, False, False, False]
    assert len(asyncio.run(connector.batched_get_non_blocking("lookup", keys(1, 3, 2)))) == 1
    assert sum(chunk.refs for chunk in connector._local.given) == 3


def test_there_and_not_there_are_truth_values(make: Make) -> None:
    connector = make()
    put(connector, 1)
    assert asyncio.run(connector.exists(Key(1))) is True
    assert asyncio.run(connector.exists(Key(2))) is False
    assert connector.exists_sync(Key(1)) is True
    assert connector.exists_sync(Key(2)) is False
    assert asyncio.run(connector.ping()) == 0
    assert asyncio.run(connector.batched_get([])) == []


@AS_EVER
def test_a_master_that_is_gone_has_nothing_and_raises_nothing(make: Make, master: OurMaster) -> None:
    connector = make()
    put(connector, 1)
    master.kill()
    began = time.monotonic()
    assert asyncio.run(connector.exists(Key(1))) is False
    assert connector.exists_sync(Key(1)) is False
    assert connector.batched_contains(keys(1, 2)) == 0
    assert asyncio.run(connector.batched_get(keys(1, 2))) == [None, None]
    put(connector, 7)
    assert connector.remove_sync(Key(1)) is False
    assert time.monotonic() - began < SLOW
    assert asyncio.run(connector.ping()) != 0
    master.start()
    deadline = time.monotonic() + FOREVER
    while asyncio.run(connector.ping()) or not connector.exists_sync(Key(8)):
        assert time.monotonic() < deadline
        put(connector, 8)
        time.sleep(0.1)


@AS_EVER
def test_a_master_that_stands_still_is_a_miss_in_time(make: Make, master: OurMaster) -> None:
    connector = make()
    put(connector, 1)
    master.halt()
    try:
        for ask in (lambda: connector.batched_contains(keys(1)), lambda: asyncio.run(connector.exists(Key(1)))):
            began = time.monotonic()
            assert not ask()
            assert time.monotonic() - began < SLOW
        began = time.monotonic()
        assert asyncio.run(connector.batched_get(keys(1))) == [None]
        assert time.monotonic() - began < SLOW
    finally:
        master.go_on()
    deadline = time.monotonic() + FOREVER
    while not connector.exists_sync(Key(1)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_engine_starts_without_a_master(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pstore.kv.client.compat.SETUP_SECONDS", 0.5)
    metadata = Metadata()
    config = Config({"mooncake_master_server_address": f"127.0.0.1:{closed_port()}"})
    connector = plugin.MooncakeAdapter().create_connector(Context(config, LocalBackend(metadata), metadata))
    try:
        assert connector.exists_sync(Key(1)) is False
        assert asyncio.run(connector.batched_get(keys(1))) == [None]
        put(connector, 1)
    finally:
        asyncio.run(connector.close())


def test_another_prefix_or_other_weights_are_not_found(make: Make, tmp_path: Path) -> None:
    put(make(cache_prefix="w1"), 1)
    assert make(cache_prefix="w1").exists_sync(Key(1))
    assert not make(cache_prefix="w2").exists_sync(Key(1))
    assert not make().exists_sync(Key(1))
    for name, weight in (("one", b"1"), ("two", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weight)
    put(make(Metadata(str(tmp_path / "one"))), 2)
    assert make(Metadata(str(tmp_path / "one"))).exists_sync(Key(2))
    assert not make(Metadata(str(tmp_path / "two"))).exists_sync(Key(2))


@pytest.mark.parametrize(
    "value",
    [
        b"short",
        bytes(28),
        fake.RemoteMetadata(500, [fake.Size((2, 2, 8, 4))], [fake.FLOAT32], fake.KV_2LTD).serialize() + bytes(512),
        fake.RemoteMetadata(512, [fake.Size((2, 2, 8, 8))], [fake.FLOAT16], fake.KV_2LTD).serialize() + bytes(512),
        fake.RemoteMetadata(512, [fake.Size((2, 4, 4, 4))], [fake.FLOAT32], fake.KV_2LTD).serialize() + bytes(512),
        fake.RemoteMetadata(1 << 20, [fake.Size((2, 2, 16384, 4))], [fake.FLOAT32], fake.KV_2LTD).serialize() + bytes(1 << 20),
    ],
    ids=["no metadata", "nothing else", "another length", "another type", "other layers", "too large"],
)  # fmt: skip
def test_what_is_no_chunk_of_this_engine_is_a_miss(
    make: Make, master: OurMaster, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(master.address, segment_size=16 << 20) as store:
        store.put(Key(9).to_string(), value)
        connector = make()
        with caplog.at_level(logging.WARNING, "p2pstore.integrations.lmcache"):
            assert asyncio.run(connector.get(Key(9))) is None
        assert "no chunk of this engine's" in caplog.text
        assert not any(chunk.refs for chunk in connector._local.given)


def test_without_memory_for_a_chunk_it_is_a_miss(make: Make) -> None:
    put(make(), 1, 2)
    connector = make(room=1)
    found = asyncio.run(connector.batched_get(keys(1, 2)))
    assert [each is not None for each in found] == [True, False]


def test_a_put_that_is_cancelled_ends_when_its_memory_is_not_read_any_more(make: Make) -> None:
    connector = make()
    going, goes_on = threading.Event(), threading.Event()
    moved = connector._store.batch_put_from_multi_buffers

    def slowly(*args: Any) -> Any:
        going.set()
        assert goes_on.wait(FOREVER)
        return moved(*args)

    connector._store.batch_put_from_multi_buffers = slowly

    async def scenario() -> None:
        putting = asyncio.create_task(connector.put(Key(1), chunk_of(1)))
        assert await asyncio.to_thread(going.wait, FOREVER)
        putting.cancel()
        await asyncio.sleep(0.05)
        assert not putting.done()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await putting

    asyncio.run(scenario())
    assert bytes(asyncio.run(connector.get(Key(1))).byte_array) == bytes(chunk_of(1).byte_array)


def test_chunks_that_nobody_waits_for_any_more_are_given_back(make: Make) -> None:
    connector = make()
    put(connector, 1, 2)
    going, goes_on = threading.Event(), threading.Event()
    values = connector._store.values

    def slowly(*args: Any) -> Any:
        going.set()
        assert goes_on.wait(FOREVER)
        return values(*args)

    connector._store.values = slowly

    async def scenario() -> None:
        getting = asyncio.create_task(connector.batched_get(keys(1, 2)))
        assert await asyncio.to_thread(going.wait, FOREVER)
        getting.cancel()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await getting

    asyncio.run(scenario())
    assert [chunk.refs for chunk in connector._local.given] == [0, 0]


def test_an_error_that_nobody_foresaw_is_logged_and_is_a_miss(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    connector = make()

    class Odd:
        def to_string(self) -> str:
            raise ZeroDivisionError

    assert connector.exists_sync(Odd()) is False
    assert asyncio.run(connector.batched_get([Odd()])) == [None]
    assert "ZeroDivisionError" in caplog.text


def test_after_its_end_it_has_nothing(make: Make) -> None:
    connector = make()
    put(connector, 1)
    asyncio.run(connector.close())
    assert asyncio.run(connector.batched_get(keys(1))) == [None]
    assert asyncio.run(connector.exists(Key(1))) is False
    assert connector.exists_sync(Key(1)) is False
    put(connector, 2)
    assert asyncio.run(connector.ping()) != 0


def test_chunks_that_are_compressed_are_refused_at_the_start(plugin: Any) -> None:
    metadata = Metadata()
    context = Context(Config({}, remote_serde="cachegen"), LocalBackend(metadata), metadata)
    with pytest.raises(ValueError, match="remote_serde is 'cachegen'"):
        plugin.MooncakeAdapter().create_connector(context)


def test_removal(make: Make) -> None:
    connector = make()
    put(connector, 1)
    assert connector.remove_sync(Key(1)) is True
    assert connector.remove_sync(Key(1)) is False
    assert connector.exists_sync(Key(1)) is False
