"""What keeps two engines apart is said, one cause for each thing that differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.errors import UsageError
from p2pstore.integrations import plans
from p2pstore.integrations.engines import EngineFacts, compare, of_files, of_key, of_metrics
from p2pstore.integrations.fingerprint import Fingerprint

FINGERPRINT = Fingerprint("w0123456789abcdef", "float32", 128, "sha256", "0")
HASH = "ab" * 32
SHARDS = "tp_rank:0@pcp0@dcp0@pp_rank:0@group:0"
KEY = f"{FINGERPRINT.text}@cpu-LBHNC@llama-3@{SHARDS}@{HASH}"


def files(
    engine: str = "vllm", master: str = "10.0.0.1:50051", tenant: str = "default", **other: object
) -> EngineFacts:
    fingerprint = FINGERPRINT._replace(**other)  # type: ignore[arg-type]
    wishes = plans.Wishes(Path("/m/llama-3"), fingerprint, master, Path("/x"), tenant=tenant)
    return of_files("/x", plans.plan(engine, wishes).files)


def key(text: str) -> EngineFacts:
    found = of_key(text)
    assert found is not None
    return found


@pytest.mark.parametrize("engine", plans.ENGINES)
def test_an_engine_by_the_files_that_it_was_started_with(engine: str) -> None:
    found = files(engine)
    assert found == EngineFacts(
        "/x", master="10.0.0.1:50051", tenant="default", weights=FINGERPRINT.weights, dtype="float32", block_size=128,
        hash_name="sha256", seed="0",
    )  # fmt: skip


def test_an_engine_by_a_key() -> None:
    found = key(KEY)
    assert (found.weights, found.dtype, found.block_size, found.seed) == (FINGERPRINT.weights, "float32", 128, "0")
    assert (found.place, found.model, found.shards, found.prefix) == ("cpu-LBHNC", "llama-3", SHARDS, None)
    found = key(f"llama-3@{SHARDS}@{HASH}")
    assert (found.weights, found.model, found.shards, found.prefix) == (None, "llama-3", SHARDS, "")
    assert key(f"mine@v2@llama-3@{SHARDS}@{HASH}").prefix == "mine@v2"
    assert of_key("step-7/w") is None
    assert of_key(f"a@b@c@{HASH}") is None


METRICS = (
    "# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n"
    'vllm:cache_config_info{block_size="128",cache_dtype="auto",enable_prefix_caching="%s",engine="0",'
    'kv_cache_memory_bytes="None",prefix_caching_hash_algo="sha256",sliding="a \\"b\\", c"} 1.0\n'
)


def test_an_engine_by_its_metrics() -> None:
    found = of_metrics("http://a", METRICS % "True")
    assert (found.block_size, found.hash_name, found.caching) == (128, "sha256", True)
    with pytest.raises(UsageError, match="it is no vLLM"):
        of_metrics("http://a", "process_cpu_seconds_total 1\n")


@pytest.mark.parametrize(
    ("other", "causes"),
    [
        (files(), ["same"]),
        (files("sglang"), ["same"]),
        (files(weights="w1"), ["other-weights"]),
        (files(dtype="float16"), ["other-dtype"]),
        (files(block_size=16), ["other-block-size"]),
        (files(hash_name="sha256_cbor"), ["other-hash"]),
        (files(seed="1", block_size=16), ["other-block-size", "other-seed"]),
        (files(master="10.0.0.2:50051"), ["other-store"]),
        (files(tenant="b"), ["other-tenant"]),
        (key(KEY), ["same"]),
        (key(KEY.replace("float32", "float16")), ["other-dtype"]),
        (of_metrics("http://a", METRICS % "True"), ["same"]),
        (of_metrics("http://a", (METRICS % "False").replace("128", "16")), ["no-caching", "other-block-size"]),
    ],
)
def test_what_differs(other: EngineFacts, causes: list[str]) -> None:
    assert [each.cause for each in compare(files(), other)] == causes
    assert [each.cause for each in compare(other, files())] == causes


@pytest.mark.parametrize(
    ("other", "causes"),
    [
        (KEY.replace(HASH, "cd" * 32), ["same"]),
        (KEY.replace("cpu-", "cuda-"), ["other-layout"]),
        (KEY.replace("@llama-3@", "@llama@"), ["other-name"]),
        (KEY.replace("tp_rank:0", "tp_rank:1"), ["other-shards"]),
    ],
)
def test_what_differs_in_keys(other: str, causes: list[str]) -> None:
    assert [each.cause for each in compare(key(KEY), key(other))] == causes


def test_prefixes_of_ones_own() -> None:
    one, other = (of_files(name, {"a": {"kv_connector_extra_config": {"cache_prefix": name}}}) for name in "ab")
    (found,) = compare(one, other)
    assert (found.cause, found.text) == ("other-prefix", "their keys begin with other words: a has a, b has b")
    nothing = of_files("n", {"a": {"kv_connector": "MooncakeStoreConnector"}})
    assert [each.cause for each in compare(one, nothing)] == ["other-prefix"]


def test_what_is_not_known_is_said() -> None:
    (found,) = compare(files(), of_metrics("http://a", METRICS % "True"))
    assert "not known of both: weights, type, seed of the hash, master" in found.text
    (found,) = compare(files(), files())
    assert "not known" not in found.text


def test_files_without_a_store() -> None:
    with pytest.raises(UsageError, match="says nothing of a store"):
        of_files("x.json", {"x.json": {"a": 1}})
    with pytest.raises(UsageError, match="no JSON object"):
        of_files("x.json", {"x.json": {"kv_connector_extra_config": 5}})
