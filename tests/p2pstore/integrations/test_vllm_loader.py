"""The loader in vLLM's own: what a model gets, and what is said when it cannot."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from p2pstore import P2PStore
from p2pstore.integrations import load_format, vllm_plugin
from tests.p2pstore.integrations import fake_vllm
from tests.p2pstore.integrations.fake_vllm import Fp8LinearMethod, Model, model_config, vllm_config
from tests.p2pstore.samples import write_tree

SHAPES = {"embed_tokens": (4, 3), "qkv_proj": (3, 2, 2), "o_proj": (2, 2), "norm": (3,)}
WEIGHTS = {
    "embed_tokens.weight": np.arange(12, dtype=np.float32).reshape(4, 3),
    "q_proj.weight": np.full((2, 2), 1, np.float32),
    "k_proj.weight": np.full((2, 2), 2, np.float32),
    "v_proj.weight": np.full((2, 2), 3, np.float32),
    "o_proj.weight": np.full((2, 2), 4, np.float32),
    "norm.weight": np.full(3, 5, np.float32),
}


@pytest.fixture(autouse=True)
def no_shim(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stay in this process, and others would take it for the wheel."""
    monkeypatch.setattr(vllm_plugin, "install", lambda: None)


@pytest.fixture
def loader_class(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ours, as vLLM's plug-in registers it, with NumPy's arrays."""
    real = load_format.ObjectWeights

    def of_numpy(*arguments: Any, **more: Any) -> Any:
        return real(*arguments, **more, framework="numpy")

    with fake_vllm.installed() as registered:
        vllm_plugin.register()
        (found,) = registered.values()
        assert list(registered) == ["mooncake"]
        monkeypatch.setitem(vars(__import__(found.__module__, fromlist=["x"])), "ObjectWeights", of_numpy)
        yield found


@pytest.fixture
def load(loader_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Registers weights with another node, and has a model load them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MOONCAKE_HOME", str(tmp_path / "home"))
    with P2PStore(f"memory://{secrets.token_hex(8)}", node="giver") as giver:

        def loaded(
            weights: dict[str, Any],
            model: Any = None,
            *,
            config: Any = None,
            speculative: Any = None,
            alone: bool = False,
            **extra: Any,
        ) -> Any:
            root = tmp_path / secrets.token_hex(4)
            write_tree(root, {"model.safetensors": safetensors.numpy.save(weights)})
            giver.register("models/tiny", root, force=True)
            told = {
                "object": "models/tiny", "peers": [giver.control], "metadata": f"memory://{secrets.token_hex(8)}",
                **extra,
            }  # fmt: skip
            loader = loader_class(SimpleNamespace(model_loader_extra_config=told))
            config = config or model_config("/models/tiny")
            if alone:
                return loader.get_all_weights(config, model)
            made = vllm_config(model or Model(SHAPES), model_config("/models/tiny"), speculative)
            return loader.load_model(made, config)

        yield loaded


def without(*names: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in WEIGHTS.items() if name not in names}


def test_a_model_gets_its_weights(load: Any) -> None:
    found = load(WEIGHTS).parameters
    assert found["qkv_proj.weight"].tolist() == [WEIGHTS[f"{each}_proj.weight"].tolist() for each in "qkv"]
    for name in ("embed_tokens.weight", "o_proj.weight", "norm.weight"):
        assert found[name].tolist() == WEIGHTS[name].tolist()


@pytest.mark.parametrize("name", ["embed_tokens.weight", "k_proj.weight", "o_proj.weight", "norm.weight"])
def test_a_weight_that_is_missing_is_named(load: Any, name: str) -> None:
    """vLLM itself asks for the last of them alone."""
    with pytest.raises(RuntimeError, match=f"^object 'models/tiny' has nothing for {name} of .*'mooncake info "):
        load(without(name))
    load(without(name), enable_weights_track=False)


def test_many_that_are_missing_are_counted(load: Any) -> None:
    with pytest.raises(RuntimeError, match=r"nothing for .*, .*, .* and 1 more weights of the model"):
        load({"norm.weight": WEIGHTS["norm.weight"], "q_proj.weight": WEIGHTS["q_proj.weight"]})


def test_layers_that_change_their_weights_are_vllms_matter(load: Any) -> None:
    load(without("o_proj.weight"), Model(SHAPES, Fp8LinearMethod))


def test_another_models_tensors_are_told(load: Any) -> None:
    with pytest.raises(RuntimeError, match=r"^tensor 'x.weight' of object 'models/tiny' does not fit .* KeyError"):
        load({**WEIGHTS, "x.weight": np.zeros(1, np.float32)})
    with pytest.raises(RuntimeError, match=r"^tensor 'o_proj.weight' of object .* does not fit .* ValueError"):
        load({**WEIGHTS, "o_proj.weight": np.zeros((2, 5), np.float32)})


def test_what_is_absent_is_told_with_what_to_do(load: Any, tmp_path: Path) -> None:
    sentence = "^the weights of /models/tiny cannot be loaded: no object is named 'other'; run 'mooncake list' to see"
    with pytest.raises(RuntimeError, match=sentence):
        load(WEIGHTS, object="other")


def test_without_an_agent(loader_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOME", tmp_path), ("MOONCAKE_HOME", tmp_path / "home")):
        monkeypatch.setenv(name, str(value))
    loader = loader_class(SimpleNamespace(model_loader_extra_config={}))
    with pytest.raises(RuntimeError, match=r"cannot be loaded: no agent runs in .*; run 'mooncake node start'"):
        loader.load_weights(Model(SHAPES), model_config("tiny"))


def test_a_slip_is_told_when_the_loader_is_made(loader_class: Any) -> None:
    with pytest.raises(ValueError, match="unknown key 'objekt'; did you mean 'object'"):
        loader_class(SimpleNamespace(model_loader_extra_config={"objekt": "x"}))


def test_weights_are_loaded_again(load: Any) -> None:
    """As vLLM's ``reload_weights`` does, which has a new loader give it all of them."""
    assert dict(load(WEIGHTS, alone=True)).keys() == WEIGHTS.keys()
    with pytest.raises(RuntimeError, match="cannot be loaded: no object is named 'other'; run 'mooncake list'"):
        next(load(WEIGHTS, alone=True, object="other"))


def test_a_draft_model_is_an_object_of_its_own(load: Any) -> None:
    speculative = SimpleNamespace(target_model_config=model_config("/models/tiny"))
    with pytest.raises(RuntimeError, match="no object is named 'draft'"):
        load(WEIGHTS, config=model_config("/models/draft"), speculative=speculative)


def test_a_tied_head_that_differs(load: Any) -> None:
    shapes = {**SHAPES, "lm_head": (4, 3)}
    with pytest.raises(RuntimeError, match=r"'lm_head.weight' of models/tiny is another tensor than its embeddings"):
        load(
            {**WEIGHTS, "lm_head.weight": np.ones((4, 3), np.float32)},
            Model(shapes),
            config=model_config("/models/tiny", tied=True),
        )


def test_experts_of_other_ranks_do_not_come(load: Any, loader_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    came: set[str] = set()

    class Experts(Model):
        def load_weights(self, weights: Any) -> Any:
            came.update(name for name, _ in weights)

    real = loader_class.load_weights

    def of_the_first(self: Any, *arguments: Any) -> None:
        self.local_expert_ids = {0}
        real(self, *arguments)

    monkeypatch.setattr(loader_class, "load_weights", of_the_first)
    load({f"layers.0.experts.{n}.up_proj.weight": np.ones((2, 2), np.float32) for n in range(3)}, Experts({}))
    assert came == {"layers.0.experts.0.up_proj.weight"}


def test_a_vllm_with_other_loaders_goes_without(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    with fake_vllm.installed() as registered:
        monkeypatch.delattr(sys.modules["vllm.model_executor.model_loader"], "register_model_loader")
        vllm_plugin.register()
    assert not registered
    assert "--load-format mooncake is not there" in caplog.text
