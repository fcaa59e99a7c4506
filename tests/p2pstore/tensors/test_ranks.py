"""Who gets which part of a tensor."""

from __future__ import annotations

from typing import Any

import pytest

from p2pstore.errors import UsageError
from p2pstore.tensors.header import Tensor
from p2pstore.tensors.plan import Cut
from p2pstore.tensors.ranks import Ranks, heads_of

LLAMA = {
    "model.embed_tokens.weight": ((128256, 4096), 0),
    "model.layers.0.self_attn.q_proj.weight": ((4096, 4096), 0),
    "model.layers.0.self_attn.k_proj.weight": ((1024, 4096), 0),
    "model.layers.0.self_attn.k_proj.bias": ((1024,), 0),
    "model.layers.0.self_attn.o_proj.weight": ((4096, 4096), 1),
    "model.layers.0.self_attn.o_proj.bias": ((4096,), None),
    "model.layers.0.mlp.gate_proj.weight": ((14336, 4096), 0),
    "model.layers.0.mlp.down_proj.weight": ((4096, 14336), 1),
    "model.layers.0.mlp.down_proj.weight_scale_inv": ((32, 112), 1),
    "model.layers.0.mlp.down_proj.weight_scale": ((4096, 1), None),
    "model.layers.0.mlp.up_proj.weight_scale": ((14336, 1), 0),
    "model.layers.0.mlp.up_proj.input_scale": ((), None),
    "model.layers.0.input_layernorm.weight": ((4096,), None),
    "model.layers.0.self_attn.q_norm.weight": ((128,), None),
    "model.layers.0.block_sparse_moe.gate.weight": ((8, 4096), None),
    "model.layers.0.block_sparse_moe.experts.7.w2.weight": ((4096, 14336), 1),
    "model.layers.0.block_sparse_moe.experts.7.w3.weight": ((14336, 4096), 0),
    "model.norm.weight": ((4096,), None),
    "lm_head.weight": ((128256, 4096), 0),
}


def tensor(name: str, shape: tuple[int, ...] = (64, 64)) -> Tensor:
    return Tensor(name, "BF16", shape, 0, 0)


@pytest.mark.parametrize("name", LLAMA)
def test_names_that_tell(name: str) -> None:
    shape, dimension = LLAMA[name]
    cut = Ranks(3, 4).cut(tensor(name, shape))
    assert cut == (None if dimension is None else Cut(dimension, 3, 4))
    assert Ranks(0, 1).cut(tensor(name, shape)) is None


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.qkv_proj.weight", (64, 64)),
        ("h.0.attn.c_attn.weight", (64, 192)),
        ("model.layers.0.mlp.experts.gate_up_proj", (8, 64, 64)),
        ("model.layers.0.self_attn.q_proj.qweight", (8, 64)),
        ("model.layers.0.self_attn.sinks", (64,)),
        ("weight", (64, 64)),
        ("", (64,)),
    ],
)
def test_names_that_do_not_tell(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="has no name that tells how ranks share it; say so with cut="):
        Ranks(0, 2).cut(tensor(name, shape))
    assert Ranks(0, 1).cut(tensor(name, shape)) is None


def test_a_callers_table_comes_first() -> None:
    ranks = Ranks(1, 2, {"*.qkv_proj.*": 0, "*.odd.*": (1, 3, 4), "lm_head.weight": None})
    assert ranks.cut(tensor("x.qkv_proj.weight")) == Cut(0, 1, 2)
    assert ranks.cut(tensor("x.odd.weight")) == Cut(1, 3, 4)
    assert ranks.cut(tensor("lm_head.weight")) is None
    assert ranks.cut(tensor("x.o_proj.weight")) == Cut(1, 1, 2)


def test_a_callers_function_comes_first() -> None:
    def rule(name: str, shape: tuple[int, ...]) -> Any:
        return len(shape) - 1 if name.startswith("c_") else NotImplemented

    ranks = Ranks(1, 2, rule)
    assert ranks.cut(tensor("c_attn.weight")) == Cut(1, 1, 2)
    assert ranks.cut(tensor("x.q_proj.weight")) == Cut(0, 1, 2)


@pytest.mark.parametrize("how", ["0", 1.5, (0, 1), (0, 2, 2), (0, "a", 2), -1, [0]])
def test_what_is_no_cut(how: Any) -> None:
    with pytest.raises(UsageError):
        Ranks(0, 2, {"x": how}).cut(tensor("x"))


@pytest.mark.parametrize("pattern", [0, b"x", None, ""])
def test_what_is_no_pattern(pattern: Any) -> None:
    with pytest.raises(UsageError, match="pattern"):
        Ranks(0, 2, {pattern: 0})


@pytest.mark.parametrize(("rank", "world"), [(-1, 2), (2, 2), (0, 0), (0, 1 << 20)])
def test_a_rank_that_cannot_be(rank: int, world: int) -> None:
    with pytest.raises(UsageError):
        Ranks(rank, world)


def test_several_ranks_have_the_same_head_of_keys() -> None:
    name = "model.layers.0.self_attn.v_proj.weight"
    parts = [Ranks(rank, 8).cut(tensor(name), (32, 2)) for rank in range(8)]
    assert parts == [Cut(0, rank // 4, 2) for rank in range(8)]
    assert Ranks(5, 8).cut(tensor(name), (32, 8)) == Cut(0, 5, 8)


@pytest.mark.parametrize(
    ("layer", "heads"), [("k_proj", (32, 6)), ("k_proj", (32, 12)), ("q_proj", (28, 4)), ("o_proj", (28, 4))]
)
def test_no_head_is_cut(layer: str, heads: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="cannot be shared by 8 ranks"):
        Ranks(0, 8).cut(tensor(f"model.layers.0.self_attn.{layer}.weight"), heads)


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        (b'{"num_attention_heads":32,"num_key_value_heads":8}', (32, 8)),
        (b'{"num_attention_heads":12}', (12, 12)),
        (b'{"text_config":{"num_attention_heads":32,"num_key_value_heads":4}}', (32, 4)),
        (b'{"num_attention_heads":"12"}', (0, 0)),
        (b"[]", (0, 0)),
        (b"\xff", (0, 0)),
        (b"[" * 100_000, (0, 0)),
        (b'{"text_config":[]}', (0, 0)),
        (b'{"num_attention_heads":-1,"num_key_value_heads":true}', (0, 0)),
    ],
)
def test_a_models_description(config: bytes, heads: tuple[int, int]) -> None:
    assert heads_of(config) == heads
