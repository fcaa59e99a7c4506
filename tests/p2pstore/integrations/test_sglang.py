"""The backend for SGLang, on our master, with SGLang's classes made small. ``tests/serving`` has the real ones."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from p2pstore.kv.client.store import Store
from tests.p2pstore.integrations import fake_sglang as fake
from tests.p2pstore.integrations.conftest import AS_EVER, FOREVER, SLOW
from tests.p2pstore.integrations.fake_sglang import (
    HostPool,
    MLATokenToKVPoolHost,
    PoolHitPolicy,
    PoolName,
    PoolTransfer,
    StorageConfig,
    indices,
)
from tests.p2pstore.kv.client.masters import OurMaster
from tests.ports import closed_port

Make = Callable[..., Any]


@pytest.fixture
def backend() -> Iterator[Any]:
    with fake.installed():
        yield importlib.import_module("p2pstore.integrations.sglang")


@pytest.fixture
def make(backend: Any, waits: None, master: OurMaster) -> Iterator[Make]:
    made: list[Any] = []

    def make_(pool: HostPool | None = None, *, extra: dict[str, Any] | None = None, **said: Any) -> Any:
        config = StorageConfig(
            {"master_server_address": master.address, "global_segment_size": "16mb", **(extra or {})}, **said
        )
        storage = backend.MooncakeStorage(config, {})
        storage.register_mem_pool_host(pool or HostPool())
        made.append(storage)
        return storage

    yield make_
    for storage in made:
        storage.close()


def test_pages_that_one_engine_put_another_gets(make: Make) -> None:
    one, two = HostPool(), HostPool()
    for page in (1, 2):
        one.fill(page, page)
    assert make(one).batch_set_v1(["a", "b"], indices(1, 2)) == [True, True]
    reader = make(two)
    assert reader.batch_exists(["a", "b", "c"]) == 2
    assert reader.batch_get_v1(["a", "b"], indices(5, 6)) == [True, True]
    assert (two.page(5), two.page(6)) == (one.page(1), one.page(2))


def test_what_is_there_counts_up_to_the_first_hole(make: Make) -> None:
    storage = make()
    storage.batch_set_v1(["a", "c"], indices(1, 2))
    assert storage.batch_exists(["a", "b", "c"]) == 1
    assert storage.batch_exists(["b"]) == 0
    assert storage.batch_exists([]) == 0
    before = storage.mem_pool_host.page(4)
    assert storage.batch_get_v1(["a", "b", "c"], indices(3, 4, 5)) == [True, False, True]
    assert storage.mem_pool_host.page(4) == before, "a page that did not come was written to"


def test_a_layout_by_layer_is_one_value_of_many_pieces(make: Make) -> None:
    one, two = HostPool(pieces=12), HostPool(pieces=12)
    one.fill(3, 3)
    assert make(one).batch_set_v1(["a"], indices(3)) == [True]
    assert make(two).batch_get_v1(["a"], indices(0)) == [True]
    assert two.page(0) == one.page(3)


def test_a_page_that_is_there_is_not_put_again(make: Make) -> None:
    storage = make()
    assert storage.batch_set_v1(["a"], indices(1)) == [True]
    storage.mem_pool_host.fill(1, 9)
    assert storage.batch_set_v1(["a", "b"], indices(1, 2)) == [True, True]
    assert storage.batch_get_v1(["a"], indices(3)) == [True]
    assert storage.mem_pool_host.page(3) == bytes(192)


@pytest.mark.parametrize(
    "other",
    [
        {"tp_rank": 1, "tp_size": 2},
        {"tp_size": 2},
        {"pp_rank": 1, "pp_size": 2},
        {"attn_cp_rank": 1, "attn_cp_size": 2},
        {"model_name": "another/model"},
        {"extra": {"cache_prefix": "w1"}},
        {"extra": {"extra_backend_tag": "mine"}},
        {"extra": {"tenant_id": "default"}, "model_name": "a/model2"},
    ],
    ids=str,
)
def test_what_differs_is_not_found(make: Make, other: dict[str, Any]) -> None:
    make().batch_set_v1(["a"], indices(1))
    assert make(**other).batch_exists(["a"]) == 0
    assert make().batch_exists(["a"]) == 1


@pytest.mark.parametrize(("name", "value"), [("dtype", "torch.float16"), ("page_size", 8), ("layout", "layer_first")])
def test_memory_of_another_kind_is_not_found(make: Make, name: str, value: Any) -> None:
    make().batch_set_v1(["a"], indices(1))
    other = HostPool()
    setattr(other, name, value)
    assert make(other).batch_exists(["a"]) == 0


def test_a_page_of_another_size_is_a_miss(make: Make) -> None:
    make(HostPool(piece=96)).batch_set_v1(["a"], indices(1))
    assert make(HostPool(piece=64)).batch_get_v1(["a"], indices(1)) == [False]


def test_ranks_of_a_model_with_latent_attention_share_what_is_the_same_for_all(make: Make) -> None:
    first, second = (make(is_mla_model=True, tp_rank=rank, tp_size=2) for rank in range(2))
    for storage in (first, second):
        storage.register_mem_host_pool_v2(HostPool(pieces=1), PoolName.INDEXER)
        storage.register_mem_host_pool_v2(HostPool(), PoolName.MAMBA)
        storage.register_mem_host_pool_v2(HostPool(), PoolName.DRAFT)
    first.batch_set_v1(["a"], indices(1))
    transfers = [PoolTransfer(name, indices(1), ["a"]) for name in (PoolName.INDEXER, PoolName.MAMBA, PoolName.DRAFT)]
    assert first.batch_set_v2(transfers) == {
        PoolName.INDEXER: [True],
        PoolName.MAMBA: [True],
        PoolName.DRAFT: [True],
    }
    assert second.batch_get_v1(["a"], indices(1)) == [True]
    assert second.batch_get_v2(transfers) == {
        PoolName.INDEXER: [True],
        PoolName.MAMBA: [False],
        PoolName.DRAFT: [False],
    }
    for storage in (first, second):
        storage.register_mem_host_pool_v2(MLATokenToKVPoolHost(), PoolName.DRAFT)
    draft = [PoolTransfer(PoolName.DRAFT, indices(2), ["b"])]
    assert first.batch_set_v2(draft) == second.batch_get_v2(draft) == {PoolName.DRAFT: [True]}


def test_a_prefix_is_as_long_as_all_pools_let_it(make: Make) -> None:
    storage = make()
    storage.register_mem_host_pool_v2(HostPool(), PoolName.MAMBA)
    storage.register_mem_host_pool_v2(HostPool(pieces=1), PoolName.INDEXER)
    keys = ["a", "b", "c", "d"]
    storage.batch_set_v1(keys, indices(0, 1, 2, 3))
    storage.batch_set_v2([PoolTransfer(PoolName.MAMBA, indices(0, 1), ["b", "d"])])
    storage.batch_set_v2([PoolTransfer(PoolName.INDEXER, indices(0, 1, 2), ["a", "b", "c"])])
    every = PoolTransfer(PoolName.INDEXER, hit_policy=PoolHitPolicy.ALL_PAGES)
    last = PoolTransfer(PoolName.MAMBA, keys=["?"], hit_policy=PoolHitPolicy.TRAILING_PAGES)
    found = storage.batch_exists_v2(keys, [last])
    assert (found.kv_hit_pages, found.restorable_prefix_pages) == (4, [2, 4])
    found = storage.batch_exists_v2(keys, [every, last])
    assert (found.kv_hit_pages, found.restorable_prefix_pages) == (2, [2])
    assert found.extra_pool_hit_pages == {PoolName.KV: 4, PoolName.INDEXER: 3, PoolName.MAMBA: 4}
    found = storage.batch_exists_v2(["z"], [every])
    assert (found.kv_hit_pages, found.extra_pool_hit_pages, found.restorable_prefix_pages) == (0, {}, [])


def test_pools_without_memory_are_only_numbers(make: Make) -> None:
    pool = HostPool()
    pool.kv_buffer = None
    storage = make(pool)
    storage.register_mem_host_pool_v2(HostPool(), PoolName.INDEXER)
    assert (
        storage.batch_set_v1(["a", "b"], indices(0, 1)) == storage.batch_get_v1(["a", "b"], indices(0, 1)) == [True] * 2
    )
    storage.batch_set_v2([PoolTransfer(PoolName.INDEXER, indices(0), ["a"])])
    assert storage.batch_exists_v2(["a", "b"], [PoolTransfer(PoolName.INDEXER)]).kv_hit_pages == 1


def test_pages_as_tensors(make: Make) -> None:
    storage = make()
    assert storage.set("a", bytes(range(100))) is True
    assert storage.batch_set(["b", "c"], [b"b" * 10, b"c" * 20]) is True
    assert storage.exists("a") is True
    assert storage.exists("z") is False
    one, two = bytearray(100), bytearray(20)
    assert storage.get("a", one) is one
    assert one == bytes(range(100))
    assert storage.batch_get(["z", "c"], [bytearray(5), two]) == [None, two]
    assert two == b"c" * 20
    assert storage.get("b", bytearray(3)) is None
    assert storage.batch_set(["d"], None) is False
    assert storage.get("a") is None


def test_clear_removes_the_pages_of_this_model_and_nothing_else(make: Make, master: OurMaster) -> None:
    storage, other = make(), make(model_name="another/model")
    for each in (storage, other):
        each.batch_set_v1(["a", "b"], indices(1, 2))
    with Store(master.address, segment_size=16 << 20) as store:
        store.put("somebody's", b"value")
        assert storage.batch_exists(["a", "b"]) == 2  # they are leased now
        assert storage.clear() is True
        assert storage.batch_exists(["a"]) == storage.batch_exists(["b"]) == 0
        assert store.get("somebody's") == b"value"
    assert other.batch_exists(["a", "b"]) == 2


def test_what_was_moved_is_told_once(make: Make) -> None:
    storage = make()
    storage.batch_set_v1(["a", "b"], indices(1, 2))
    storage.batch_get_v1(["a", "b", "c"], indices(1, 2, 3))
    stats = storage.get_stats()
    assert (stats.backup_pgs, stats.prefetch_pgs) == ([2], [2])
    assert stats.backup_bandwidth[0] > 0 < stats.prefetch_bandwidth[0]
    assert storage.get_stats() == fake.StorageMetrics()


@AS_EVER
def test_a_master_that_is_gone_has_nothing_and_raises_nothing(make: Make, master: OurMaster) -> None:
    storage = make()
    storage.batch_set_v1(["a"], indices(1))
    master.kill()
    began = time.monotonic()
    assert storage.batch_exists(["a"]) == 0
    assert storage.batch_get_v1(["a"], indices(1)) == [False]
    assert storage.batch_set_v1(["b"], indices(1)) == [False]
    assert storage.batch_exists_v2(["a"], []).kv_hit_pages == 0
    assert storage.get("a", bytearray(10)) is None
    assert storage.set("a", b"x") is False
    assert storage.clear() is False
    assert time.monotonic() - began < SLOW
    master.start()
    deadline = time.monotonic() + FOREVER
    while not all(storage.batch_set_v1(["c"], indices(1))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    storage._store.seconds = FOREVER
    assert storage.batch_get_v1(["c"], indices(2)) == [True]


@AS_EVER
def test_a_master_that_stands_still_is_a_miss_in_time(make: Make, master: OurMaster) -> None:
    storage = make()
    storage.batch_set_v1(["a"], indices(1))
    storage.mem_pool_host.fill(2, 77)
    before = storage.mem_pool_host.page(2)
    master.halt()
    try:
        began = time.monotonic()
        assert storage.batch_exists(["a"]) == 0
        assert storage.batch_get_v1(["a"], indices(2)) == [False]
        assert time.monotonic() - began < SLOW
    finally:
        master.go_on()
    deadline = time.monotonic() + FOREVER
    while not storage.batch_exists(["a"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert storage.mem_pool_host.page(2) == before, "the late answer was written to a page that is another's by now"


def test_an_engine_starts_without_a_master(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pstore.kv.client.compat.SETUP_SECONDS", 0.5)
    storage = backend.MooncakeStorage(StorageConfig({"master_server_address": f"127.0.0.1:{closed_port()}"}), {})
    try:
        storage.register_mem_pool_host(HostPool())
        assert storage.batch_exists(["a"]) == 0
        assert storage.batch_set_v1(["a"], indices(1)) == [False]
    finally:
        storage.close()


def test_an_error_that_nobody_foresaw_is_logged_and_is_a_miss(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    storage = make()
    assert storage.batch_get_v1(["a", "b", "c"], indices(1)) == [False] * 3  # two pieces for three pages
    assert storage.batch_set_v2([PoolTransfer(PoolName.MAMBA, indices(1), ["a"])]) == {PoolName.MAMBA: [False]}
    assert "this was not foreseen" in caplog.text


def test_its_calls_may_come_from_several_threads(make: Make) -> None:
    storage = make()
    wrong: list[object] = []

    def work(number: int) -> None:
        for step in range(20):
            key, page = f"{number}-{step}", number
            storage.mem_pool_host.fill(page, step)
            before = storage.mem_pool_host.page(page)
            if storage.batch_set_v1([key], indices(page)) == [True]:
                storage.mem_pool_host.fill(page, step + 1)
                if storage.batch_get_v1([key], indices(page)) == [True] and storage.mem_pool_host.page(page) != before:
                    wrong.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FOREVER)
    assert wrong == []
    assert storage.batch_exists(["0-0"]) == 1
