"""Weights for an engine: what it is told, and the tensors of an object of another node."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from p2pstore import P2PStore
from p2pstore.errors import AgentNotRunning, BadConfig, ObjectNotFound, SecretRefused, UsageError
from p2pstore.integrations.load_format import LoadOptions, ObjectWeights, lacking, object_name, open_cluster
from p2pstore.pull.tensor_stream import MEMORY
from tests.p2pstore.samples import MIB, write_tree

WEIGHTS = {
    "model.embed_tokens.weight": np.arange(12, dtype=np.float32).reshape(4, 3),
    "model.layers.0.experts.0.up_proj.weight": np.ones((2, 3), np.float32),
    "model.layers.0.experts.1.up_proj.weight": np.full((2, 3), 2, np.float32),
    "lm_head.weight": np.arange(12, 24, dtype=np.float32).reshape(4, 3),
}


def test_what_it_is_told() -> None:
    assert LoadOptions.of({}) == LoadOptions("", "", "", "", (), MEMORY)
    told = {
        "object": "models/llama-3", "path": "unet", "metadata": "etcd://a:2379", "transport": "tcp",
        "peers": ["10.0.0.5:7300"], "memory": "64MiB", "enable_weights_track": False,
    }  # fmt: skip
    assert LoadOptions.of(told) == LoadOptions(
        "models/llama-3", "unet", "etcd://a:2379", "tcp", ("10.0.0.5:7300",), 64 * MIB, enable_weights_track=False
    )
    assert LoadOptions.of({"memory": 2 * MIB}).memory == 2 * MIB


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"objct": "a"}, "unknown key 'objct'; did you mean 'object'"),
        ({"x": "a"}, "unknown key 'x'; the keys are object, path,"),
        ({"object": 3}, "object: it is a text that says something, not 3"),
        ({"object": " "}, "object: it is a text"),
        ({"transport": "air"}, "transport: 'air' is none of auto, rdma"),
        ({"peers": "10.0.0.5:7300"}, "peers: it is a list of peers"),
        ({"peers": [3]}, "peers: it is a text"),
        ({"memory": "much"}, "memory: "),
        ({"memory": "1KiB"}, "memory: '1KiB' is less than 1.0 MiB"),
        ({"memory": True}, "memory: it is a size"),
        ({"enable_weights_track": "no"}, "enable_weights_track: it is true or false"),
        ([], "it is a table in JSON, and no list"),
    ],
)
def test_what_is_not_understood_is_refused(told: Any, sentence: str) -> None:
    with pytest.raises(BadConfig, match=f"^--model-loader-extra-config.*{sentence}"):
        LoadOptions.of(told)


def test_the_object_is_the_one_that_was_named_or_has_the_models_name(tmp_path: Path, monkeypatch: Any) -> None:
    assert object_name(LoadOptions("a/b"), "meta-llama/Llama-3") == "a/b"
    assert object_name(LoadOptions(), "meta-llama/Llama-3") == "meta-llama/Llama-3"
    assert object_name(LoadOptions(), "/models/llama-3/") == "llama-3"
    (tmp_path / "here" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert object_name(LoadOptions(), "here/tiny") == "tiny"


PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


@pytest.mark.parametrize(
    ("loaded", "came", "found"),
    [
        ({"a.qkv_proj.weight", "a.o_proj.weight"}, {"a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight"}, []),
        ({"a.qkv_proj.weight"}, {"a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight"}, ["a.o_proj.weight"]),
        ({"a.qkv_proj.weight", "a.o_proj.weight"}, {"a.q_proj.weight", "a.v_proj.weight"}, ["a.k_proj.weight"]),
        ({"a.qkv_proj.weight", "a.o_proj.weight"}, {"a.qkv_proj.weight"}, []),  # a checkpoint that has them in one
        ({"a.qkv_proj.weight", "a.o_proj.weight"}, {"other.q_proj.weight"}, []),  # or under other names
    ],
)
def test_what_nothing_came_for(loaded: set[str], came: set[str], found: list[str]) -> None:
    assert lacking(["a.qkv_proj.weight", "a.qkv_proj.bias", "a.o_proj.weight"], loaded, came, PACKED) == found


@pytest.fixture
def giver(tmp_path: Path) -> Iterator[P2PStore]:
    with P2PStore(f"memory://{secrets.token_hex(8)}", node="giver") as made:
        write_tree(tmp_path / "m", {"model.safetensors": safetensors.numpy.save(WEIGHTS)})
        made.register("m", tmp_path / "m")
        yield made


def opened(options: LoadOptions) -> P2PStore:
    return P2PStore(f"memory://{secrets.token_hex(8)}", node="engine")


def weights(giver: P2PStore, name: str = "m", **more: Any) -> ObjectWeights:
    return ObjectWeights(LoadOptions(peers=(giver.control,)), name, framework="numpy", open_store=opened, **more)


def test_tensors_come(giver: P2PStore, caplog: Any) -> None:
    caplog.set_level("INFO", "vllm.mooncake")
    with weights(giver) as found:
        came = dict(found.tensors())
    assert {name: tensor.tolist() for name, tensor in came.items()} == {n: t.tolist() for n, t in WEIGHTS.items()}
    assert found.came == set(WEIGHTS)
    assert "4 tensors of m, 144 B, came and were loaded in" in caplog.text


def test_what_is_not_needed_does_not_come(giver: P2PStore) -> None:
    with weights(giver) as found:
        assert dict(found.tensors(lambda name: ".experts.1." not in name)).keys() == WEIGHTS.keys() - {
            "model.layers.0.experts.1.up_proj.weight"
        }


def test_the_node_is_gone_afterwards_whatever_happens(giver: P2PStore) -> None:
    before = {thread.name for thread in threading.enumerate()}
    found = weights(giver)
    with pytest.raises(KeyError), found:
        raise KeyError(next(found.tensors())[0])
    assert found.last in WEIGHTS
    with pytest.raises(ObjectNotFound), weights(giver, "other") as found:
        list(found.tensors())
    left = {thread.name for thread in threading.enumerate()} - before
    assert left.isdisjoint({"p2pstore-engine", "tensors-m", "tensors-other"})


def test_a_head_that_the_engine_would_leave_out(giver: P2PStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'lm_head.weight' of m is another tensor .* --hf-overrides"):  # noqa: SIM117
        with weights(giver, tied=True) as found:
            list(found.tensors())
    same = {**WEIGHTS, "lm_head.weight": WEIGHTS["model.embed_tokens.weight"]}
    for name, content in (("same", same), ("none", {n: t for n, t in WEIGHTS.items() if n != "lm_head.weight"})):
        write_tree(tmp_path / name, {"model.safetensors": safetensors.numpy.save(content)})
        giver.register(name, tmp_path / name)
        with weights(giver, name, tied=True) as found:
            assert len(list(found.tensors())) == len(content)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "MOONCAKE_HOME": str(tmp_path / "home")}


def test_the_cluster_is_found_as_everywhere(environ: dict[str, str]) -> None:
    with pytest.raises(AgentNotRunning, match="no agent runs in"):
        open_cluster(LoadOptions(), environ)
    url = f"memory://{secrets.token_hex(8)}"
    for options, said in ((LoadOptions(metadata=url), {}), (LoadOptions(), {"MOONCAKE_METADATA": url})):
        with open_cluster(options, {**environ, **said, "MOONCAKE_LISTEN": "127.0.0.1:7300-7309"}) as store:
            assert store.control.startswith("127.0.0.1:")


def test_the_clusters_secret_is_the_settings(environ: dict[str, str], tmp_path: Path) -> None:
    write_tree(tmp_path / "m", {"model.safetensors": safetensors.numpy.save(WEIGHTS)})
    with P2PStore(f"memory://{secrets.token_hex(8)}", secret=b"s" * 32, node="giver") as giver:
        giver.register("m", tmp_path / "m")
        options = LoadOptions(metadata=f"memory://{secrets.token_hex(8)}", peers=(giver.control,))
        for secret in ("s" * 32, "t" * 32):

            def opened(options: LoadOptions, secret: str = secret) -> P2PStore:
                return open_cluster(options, {**environ, "MOONCAKE_SECRET": secret})

            with ObjectWeights(options, "m", framework="numpy", open_store=opened) as found:
                if secret[0] == "s":
                    assert len(dict(found.tensors())) == len(WEIGHTS)
                else:
                    with pytest.raises(SecretRefused):
                        list(found.tensors())
