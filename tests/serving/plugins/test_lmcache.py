"""LMCache's real classes with our plug-in, on our master: configuration, connector, memory of its own."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pstore.integrations.fingerprint import Fingerprint
from p2pstore.integrations.plans import Wishes, plan
from p2pstore.kv.client.store import Store
from tests.p2pstore.integrations.conftest import AS_EVER, FOREVER, SLOW
from tests.p2pstore.kv.client.masters import OurMaster

pytest.importorskip("lmcache", reason="needs LMCache: make test-serving installs it")
torch = pytest.importorskip("torch", reason="needs PyTorch: make test-serving installs it")

TOKENS = 16

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever, daemon=True)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join(FOREVER)
    made.close()


@pytest.fixture
def make(waits: None, master: OurMaster, loop: asyncio.AbstractEventLoop) -> Iterator[Make]:
    """Makes LMCache's own ``RemoteBackend``, with nothing but configuration."""
    from lmcache.v1.config import LMCacheEngineConfig
    from lmcache.v1.metadata import LMCacheMetadata
    from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend
    from lmcache.v1.storage_backend.remote_backend import RemoteBackend

    made: list[Any] = []

    def make_(dtype: Any = None, model: str = "a/model", meta: bool = True, config: Any = None, **said: str) -> Any:
        config = config or LMCacheEngineConfig.from_dict(
            {
                "chunk_size": TOKENS,
                "local_cpu": False,
                "max_local_cpu_size": 0.1,
                "remote_serde": "naive",
                "remote_storage_plugins": ["mooncake"],
                "extra_config": {
                    "save_chunk_meta": meta,
                    "remote_storage_plugin.mooncake.module_path": "p2pstore.integrations.lmcache",
                    "remote_storage_plugin.mooncake.class_name": "MooncakeAdapter",
                    "mooncake_master_server_address": master.address,
                    "mooncake_global_segment_size": "32mb",
                    **{f"mooncake_{name}": value for name, value in said.items()},
                },
            }
        )
        dtype = dtype or torch.float32
        metadata = LMCacheMetadata(model, 1, 1, 0, 0, dtype, (2, 2, TOKENS, 2, 8), chunk_size=TOKENS)
        local = LocalCPUBackend(config, metadata, dst_device="cpu")
        made.append(RemoteBackend(config, metadata, loop, local, "cpu", plugin_name="mooncake"))
        assert made[-1].connection is not None
        return made[-1]

    yield make_
    for backend in made:
        backend.close()


def key(backend: Any, number: int) -> Any:
    from lmcache.utils import CacheEngineKey

    metadata = backend.metadata
    return CacheEngineKey(metadata.model_name, 1, 0, number, metadata.kv_dtype)


def chunk(backend: Any, number: int, tokens: int = TOKENS) -> Any:
    made = backend.local_cpu_backend.allocate(
        backend.metadata.get_shapes(tokens), backend.metadata.get_dtypes(), backend.connection._connector.meta_fmt
    )
    made.tensor[:] = torch.arange(made.tensor.numel(), dtype=torch.float32).reshape(made.tensor.shape) + number
    return made


def put(backend: Any, *numbers: int) -> None:
    chunks = [chunk(backend, number) for number in numbers]
    backend.batched_submit_put_task([key(backend, number) for number in numbers], chunks)
    deadline = time.monotonic() + FOREVER
    while any(each.get_ref_count() > 1 for each in chunks):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for each in chunks:
        each.ref_count_down()


@pytest.mark.parametrize("meta", [True, False])
def test_chunks_go_from_one_engine_to_another(make: Make, meta: bool) -> None:
    writer, reader = make(meta=meta), make(meta=meta)
    put(writer, 1, 2)
    wanted = [key(reader, number) for number in (1, 2)]
    assert reader.batched_contains(wanted) == 2
    assert reader.contains(wanted[0]) is True
    for number, found in zip((1, 2), reader.batched_get_blocking(wanted), strict=True):
        assert torch.equal(found.tensor, chunk(writer, number).tensor)
    assert torch.equal(reader.get_blocking(wanted[1]).tensor, chunk(writer, 2).tensor)


def test_a_hole_ends_the_prefix(make: Make, loop: asyncio.AbstractEventLoop) -> None:
    backend = make()
    put(backend, 1, 3)
    wanted = [key(backend, number) for number in (1, 2, 3)]
    assert backend.batched_contains(wanted) == 1
    assert [each is not None for each in backend.batched_get_blocking(wanted)] == [True, False, False]
    found = asyncio.run_coroutine_threadsafe(backend.batched_get_non_blocking("id", wanted), loop).result(FOREVER)
    assert len(found) == 1
    found = asyncio.run_coroutine_threadsafe(backend.batched_async_contains("id", wanted), loop).result(FOREVER)
    assert found == 1


def test_other_types_and_weights_are_not_found(make: Make) -> None:
    put(make(), 1)
    half = make(dtype=torch.float16)
    assert half.contains(key(half, 1)) is False
    other = make(cache_prefix="w2")
    assert other.contains(key(other, 1)) is False


def test_lmcaches_own_connector_has_the_same_keys_and_values(make: Make, master: OurMaster) -> None:
    """Of which its header is a part: what it puts we read."""
    from lmcache.v1.protocol import RemoteMetadata

    backend = make()
    made = chunk(backend, 5)
    head = RemoteMetadata(
        len(made.byte_array), made.get_shapes(), made.get_dtypes(), made.get_memory_format()
    ).serialize()
    with Store(master.address, segment_size=32 << 20) as store:
        store.put_parts(key(backend, 5).to_string(), [head, made.byte_array])
        assert torch.equal(backend.get_blocking(key(backend, 5)).tensor, made.tensor)
        put(backend, 6)
        assert store.get(key(backend, 6).to_string()) == head + bytes(chunk(backend, 6).byte_array)


def test_memory_is_given_back(make: Make) -> None:
    """A hundred times the memory that LMCache has goes through it."""
    backend = make()
    put(backend, *range(8))
    wanted = [key(backend, number) for number in range(8)]
    size = 8 * backend.connection._connector.full_chunk_size_bytes
    for _ in range(int(100 * 0.1 * (1 << 30) / size) if size > 1 << 20 else 200):
        for each in backend.batched_get_blocking(wanted):
            each.ref_count_down()
    assert backend.local_cpu_backend.memory_allocator.memcheck()


@AS_EVER
def test_a_master_that_is_gone_or_stands_still_has_nothing(make: Make, master: OurMaster) -> None:
    backend = make()
    put(backend, 1)
    for end in (master.halt, master.kill):
        end()
        began = time.monotonic()
        assert backend.contains(key(backend, 1)) is False
        assert backend.batched_contains([key(backend, 1)]) == 0
        assert backend.batched_get_blocking([key(backend, 1)]) == [None]
        assert time.monotonic() - began < SLOW
        put(backend, 7)
        if end == master.halt:
            master.go_on()
            deadline = time.monotonic() + FOREVER
            while not backend.contains(key(backend, 1)):
                assert time.monotonic() < deadline
                time.sleep(0.1)


def test_the_documents_configuration_works(make: Make, master: OurMaster, tmp_path: Path) -> None:
    from lmcache.v1.config import LMCacheEngineConfig

    text = (Path(__file__).parents[3] / "docs/serving.md").read_text()
    (words,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    for before, after in (
        ("127.0.0.1:50051", master.address),
        (" 1gb", " 32mb"),
        ("chunk_size: 256", "chunk_size: 16"),
    ):
        assert before in words
        words = words.replace(before, after)
    (tmp_path / "lmcache.yaml").write_text(f"{words}local_cpu: false\nmax_local_cpu_size: 0.1\n")
    backend = make(config=LMCacheEngineConfig.from_file(str(tmp_path / "lmcache.yaml")))
    put(backend, 1)
    assert backend.contains(key(backend, 1)) is True
    assert backend.connection._connector._begins == "llama-3-8b-2024-04-18@"


def test_what_serve_init_writes_works(make: Make, master: OurMaster, tmp_path: Path) -> None:
    from lmcache.v1.config import LMCacheEngineConfig

    wishes = Wishes(tmp_path, Fingerprint("w1", "float32", TOKENS), master.address, tmp_path)
    written = plan("lmcache", wishes).files["lmcache.yaml"]
    written = {**written, "local_cpu": False, "max_local_cpu_size": 0.1}
    written["extra_config"] |= {
        "mooncake_master_server_address": master.address,
        "mooncake_global_segment_size": "32mb",
    }
    (tmp_path / "lmcache.yaml").write_text(json.dumps(written))
    backend = make(config=LMCacheEngineConfig.from_file(str(tmp_path / "lmcache.yaml")))
    put(backend, 1)
    assert backend.contains(key(backend, 1)) is True
    assert backend.connection._connector._begins.startswith("w1@float32@")
