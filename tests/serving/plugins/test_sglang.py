"""SGLang's real classes with our backend, on our master: its factory, its configuration, tensors of the host."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pstore.integrations.fingerprint import Fingerprint
from p2pstore.integrations.plans import Wishes, plan
from tests.p2pstore.integrations.conftest import AS_EVER, FOREVER, SLOW
from tests.p2pstore.kv.client.masters import OurMaster

pytest.importorskip("sglang", reason="needs SGLang: make test-serving installs it")
torch = pytest.importorskip("torch", reason="needs PyTorch: make test-serving installs it")

PAGE = 4

Make = Callable[..., Any]


class HostPool:
    """Pages of keys and of values in a tensor, "page_first", as ``MHATokenToKVPoolHost`` has them.

    SGLang's own cannot be imported without its kernels for CUDA.
    """

    layout = "page_first"
    page_size = PAGE

    def __init__(self, dtype: Any = None, pages: int = 16, width: int = 32) -> None:
        self.dtype = dtype or torch.float32
        self.kv_buffer = torch.zeros((2, pages * PAGE, width), dtype=self.dtype)

    def get_page_buffer_meta(self, indices: Any) -> tuple[list[int], list[int]]:
        size = PAGE * self.kv_buffer.shape[2] * self.dtype.itemsize
        rows = indices.tolist()[::PAGE]
        pointers = [self.kv_buffer[half, row].data_ptr() for row in rows for half in (0, 1)]
        return pointers, [size] * len(pointers)

    def page(self, number: int) -> Any:
        return self.kv_buffer[:, number * PAGE : (number + 1) * PAGE]


def indices(*pages: int) -> Any:
    return torch.tensor([page * PAGE + at for page in pages for at in range(PAGE)])


@pytest.fixture
def make(waits: None, master: OurMaster) -> Iterator[Make]:
    """Has SGLang's factory make the backend, with nothing but configuration."""
    from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig
    from sglang.srt.mem_cache.storage import StorageBackendFactory

    made: list[Any] = []

    def make_(pool: Any = None, *, extra: dict[str, Any] | None = None, **said: Any) -> Any:
        config = {
            "tp_rank": 0, "tp_size": 1, "pp_rank": 0, "pp_size": 1, "attn_cp_rank": 0, "attn_cp_size": 1,
            "is_mla_model": False, "enable_storage_metrics": True, "is_page_first_layout": True, "model_name": "a/model",
            **said,
        }  # fmt: skip
        told = {
            "backend_name": "mooncake",
            "module_path": "p2pstore.integrations.sglang",
            "class_name": "MooncakeStorage",
            "interface_v1": 1,
            "master_server_address": master.address,
            "global_segment_size": "32mb",
            **(extra or {}),
        }
        pool = pool or HostPool()
        storage = StorageBackendFactory.create_backend(
            "dynamic", HiCacheStorageConfig(**config, extra_config=told), pool
        )
        storage.register_mem_pool_host(pool)
        storage.on_host_pools_registered()
        made.append(storage)
        return storage

    yield make_
    for storage in made:
        storage.close()


def test_pages_go_from_one_engine_to_another(make: Make) -> None:
    one, two = HostPool(torch.bfloat16), HostPool(torch.bfloat16)
    one.kv_buffer.uniform_()
    assert make(one).batch_set_v1(["a", "b"], indices(1, 2), None) == [True, True]
    reader = make(two)
    assert reader.batch_exists(["a", "b", "c"], None) == 2
    assert reader.batch_get_v1(["a", "b", "c"], indices(5, 6, 7), None) == [True, True, False]
    assert torch.equal(two.page(5), one.page(1))
    assert torch.equal(two.page(6), one.page(2))
    assert not two.page(7).any()


def test_pools_of_a_hybrid_model(make: Make) -> None:
    from sglang.srt.mem_cache.hicache_storage import PoolHitPolicy, PoolName, PoolTransfer, count_pool_hits

    storage = make()
    state = HostPool(torch.float32, width=8)
    state.kv_buffer.uniform_()
    storage.register_mem_host_pool_v2(state, PoolName.MAMBA)
    storage.batch_set_v1(["a", "b", "c"], indices(0, 1, 2), None)
    put = storage.batch_set_v2([PoolTransfer(PoolName.MAMBA, host_indices=indices(0), keys=["b"])], extra_info=None)
    assert count_pool_hits(put) == {PoolName.MAMBA: 1}
    wanted = PoolTransfer(PoolName.MAMBA, keys=["?"], hit_policy=PoolHitPolicy.TRAILING_PAGES)
    found = storage.batch_exists_v2(["a", "b", "c"], [wanted], None)
    assert (found.kv_hit_pages, found.restorable_prefix_pages) == (2, [2])
    assert found.extra_pool_hit_pages == {PoolName.KV: 3, PoolName.MAMBA: 2}
    got = storage.batch_get_v2([PoolTransfer(PoolName.MAMBA, host_indices=indices(9), keys=["b"])])
    assert got == {PoolName.MAMBA: [True]}
    assert torch.equal(state.page(9), state.page(0))


def test_pages_as_tensors(make: Make) -> None:
    storage = make()
    pages = [torch.rand(3, 5, dtype=torch.float32).to(torch.bfloat16) for _ in range(2)]
    assert storage.batch_set(["a", "b"], pages) is True
    empty = [torch.zeros_like(page) for page in pages]
    found = storage.batch_get(["a", "b"], empty)
    assert all(torch.equal(one, two) for one, two in zip(found, pages, strict=True))
    assert storage.get("z", torch.zeros(3)) is None


def test_its_collector_knows_what_it_is_told() -> None:
    """Read, for it is imported only where SGLang's kernels are."""
    from p2pstore.integrations.sglang import RATES

    (place,) = importlib.util.find_spec("sglang").submodule_search_locations  # type: ignore[union-attr]
    tree = ast.parse((Path(place) / "srt/observability/metrics_collector.py").read_text())
    (found,) = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == "StorageMetrics"]
    assert [each.target.id for each in found.body if isinstance(each, ast.AnnAssign)] == list(RATES)


def test_the_documents_configuration_works(make: Make, master: OurMaster) -> None:
    text = (Path(__file__).parents[3] / "docs/serving.md").read_text()
    (words,) = re.findall(r"```sh\n(python -m sglang.*?)```", text, re.DOTALL)
    said = json.loads(shlex.split(words)[-1])
    storage = make(extra={**said, "master_server_address": master.address, "global_segment_size": "32mb"})
    assert storage.batch_set_v1(["a"], indices(1), None) == [True]
    assert storage.batch_exists(["a"], None) == 1


def test_what_serve_init_writes_works(make: Make, tmp_path: Path) -> None:
    wishes = Wishes(tmp_path, Fingerprint("w1", "float32", PAGE), "said elsewhere", tmp_path)
    storage = make(extra=dict(plan("sglang", wishes).files["sglang.json"]))
    assert storage.batch_set_v1(["a"], indices(1), None) == [True]
    assert storage.batch_exists(["a"], None) == 1
    assert make().batch_exists(["a"], None) == 0


@AS_EVER
def test_a_master_that_is_gone_or_stands_still_has_nothing(make: Make, master: OurMaster) -> None:
    storage = make()
    storage.batch_set_v1(["a"], indices(1), None)
    for end in (master.halt, master.kill):
        end()
        began = time.monotonic()
        assert storage.batch_exists(["a"], None) == 0
        assert storage.batch_get_v1(["a"], indices(1), None) == [False]
        assert time.monotonic() - began < SLOW
        if end == master.halt:
            master.go_on()
            deadline = time.monotonic() + FOREVER
            while storage.batch_exists(["a"], None) != 1:
                assert time.monotonic() < deadline
                time.sleep(0.1)


def test_another_backend_name_is_an_error_of_sglangs(make: Make) -> None:
    with pytest.raises(AttributeError, match="MooncakeStorage2"):
        make(extra={"class_name": "MooncakeStorage2"})
