"""What our connector for vLLM makes of an engine's configuration. ``tests/serving/test_vllm.py`` has whole engines."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from p2pstore.integrations.fingerprint import Fingerprint, sampled

pytest.importorskip("vllm", reason="needs vLLM: make test-serving installs it")


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")


def engine(model: str) -> Any:
    cache = SimpleNamespace(
        cache_dtype="auto", block_size=128, prefix_caching_hash_algo="sha256",
        get_resolved_kv_cache_layout=lambda: SimpleNamespace(name="LBHNC"),
    )  # fmt: skip
    return SimpleNamespace(
        model_config=SimpleNamespace(model=model, revision=None, dtype="torch.float32"), cache_config=cache
    )


def made(model: str, given: str = "") -> str:
    from p2pstore.integrations import vllm

    prefix, _, where = vllm._prefix(engine(model), given).rpartition("@")
    assert where.endswith("-LBHNC")
    return prefix


def test_weights_are_looked_at_where_they_lie_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert made(str(tmp_path)) == Fingerprint(sampled(tmp_path), "float32", 128, "sha256", "0").text


@pytest.mark.parametrize("model", ["/models/one.gguf", "organisation/model:Q4_K_M", "s3://bucket/model", "a/b"])
def test_an_engine_starts_whose_weights_cannot_be_looked_at(model: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vllm.mooncake"):
        assert made(model) == Fingerprint("w0", "float32", 128, "sha256", "0").text
    assert f"the weights of {model} cannot be told from others" in caplog.text


def test_a_prefix_that_says_something_else_is_put_right_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    right = Fingerprint("w1", "float32", 128, "sha256", "0")
    with caplog.at_level(logging.WARNING, "vllm.mooncake"):
        assert made("a/b", right.text) == right.text
        assert not caplog.records
        for given in (right._replace(dtype="bfloat16").text, f"{right.text}@mine"):
            assert made("a/b", given) == right.text
            assert f"cache_prefix={given} is not, or not only" in caplog.text
    assert made("a/b", "mine") == f"mine@{right._replace(weights='w0').text}"
