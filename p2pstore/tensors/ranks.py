"""Which part of a tensor a rank of tensor parallelism gets, as far as names tell. Pure.

The conventions are those of Megatron, which vLLM (``ColumnParallelLinear``, ``RowParallelLinear``,
``VocabParallelEmbedding``) and the plans of transformers (``base_model_tp_plan``: "colwise", "rowwise") share. Weights
are (out, in). A layer whose outputs are spread is cut along dimension 0, with its bias; one whose inputs are, along
dimension 1, and its bias is whole. What names do not tell (fused projections, quantizers' layouts) a caller has to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from engine import arguments
from p2pstore.errors import UsageError
from p2pstore.tensors.header import Tensor
from p2pstore.tensors.patterns import NamePatterns
from p2pstore.tensors.plan import Cut

if TYPE_CHECKING:
    from types import NotImplementedType

How: TypeAlias = "int | tuple[int, int, int] | None"
"""A dimension that is cut into as many parts as there are ranks; or dimension, part and parts; or None: all of it."""

Rule: TypeAlias = "Mapping[str, How] | Callable[[str, tuple[int, ...]], How | NotImplementedType]"
"""By pattern of names, the first that fits; or called with a tensor's name and shape. What it does not know, the
conventions do; a callable says so with ``NotImplemented``."""

MAX_RANKS = 65536

COLUMNS = frozenset(
    [
        "q_proj",
        "k_proj",
        "v_proj",
        "gate_proj",
        "up_proj",
        "q_b_proj",
        "kv_b_proj",
        "fc1",
        "w1",
        "w3",
        "wq",
        "wk",
        "wv",
        "query",
        "key",
        "value",
        "dense_h_to_4h",
        "lm_head",
        "embed_tokens",
        "word_embeddings",
    ]
)
"""Layers cut along their outputs, the vocabulary being one, too."""

ROWS = frozenset(["o_proj", "down_proj", "out_proj", "fc2", "w2", "wo", "dense_4h_to_h"])
"""Layers cut along their inputs."""

WHOLE = frozenset(
    [
        "gate",
        "router",
        "shared_expert_gate",
        "q_a_proj",
        "kv_a_proj_with_mqa",
        "embed_positions",
        "position_embeddings",
        "rotary_emb",
    ]
)
"""Layers that every rank has."""

KEYS_VALUES = frozenset(["k_proj", "v_proj", "key", "value", "wk", "wv"])
"""Layers of heads of keys and values: of those there may be fewer than ranks, and then several have the same."""

QUERIES = frozenset(["q_proj", "o_proj", "out_proj", "query", "wq", "wo"])
"""Layers of heads of queries, none of which may be cut."""

LIKE_WEIGHTS = frozenset(("weight", "weight_scale", "weight_scale_inv"))
"""Parameters that are cut as the weight is; scales have one number a row or block of it."""


def heads_of(config: bytes) -> tuple[int, int]:
    """Attention heads of queries, and of keys and values, from a model's ``config.json``; 0 where it does not tell.

    Where it has no number for keys and values, each head of queries has its own.
    """
    try:
        found = json.loads(config)
    except (ValueError, RecursionError):
        return 0, 0
    if isinstance(found, dict) and "num_attention_heads" not in found:
        found = found.get("text_config")  # of models that see or hear, too
    if not isinstance(found, dict):
        return 0, 0
    counts = [found.get(name) for name in ("num_attention_heads", "num_key_value_heads")]
    queries, keys = (count if type(count) is int and count > 0 else 0 for count in counts)
    return queries, keys or queries


class Ranks:
    """What one rank of ``world`` gets of each tensor. Raises ``UsageError`` for a rank or a pattern that cannot be."""

    def __init__(self, rank: int, world: int, rule: Rule | None = None) -> None:
        if not 0 <= rank < world <= MAX_RANKS:
            raise UsageError(detail=f"rank {rank} of {world} cannot be; ranks count from 0, up to {MAX_RANKS} of them")
        self.rank = rank
        self.world = world
        self.rule = rule
        table = rule.items() if isinstance(rule, Mapping) else ()
        self._by_pattern = [(NamePatterns((arguments.text(p, "a pattern of cut"),)), how) for p, how in table]

    def cut(self, tensor: Tensor, heads: tuple[int, int] = (0, 0)) -> Cut | None:
        """The rank's part of a tensor; None for all of it. ``heads`` are as of ``heads_of``.

        Raises ``UsageError`` where neither the caller nor the names tell, and where heads cannot be shared.
        """
        if self.world == 1:
            return None
        found = self._said(tensor)
        if found is not NotImplemented:
            return self._checked(found, tensor)
        return self._by_convention(tensor, heads)

    def _said(self, tensor: Tensor) -> object:
        """What the caller's rule says."""
        if callable(self.rule):
            return self.rule(tensor.name, tensor.shape)
        return next((how for pattern, how in self._by_pattern if pattern.takes(tensor.name)), NotImplemented)

    def _checked(self, how: object, tensor: Tensor) -> Cut | None:
        if how is None:
            return None
        what = f"the cut of tensor {tensor.name!r}"
        if isinstance(how, tuple):
            if len(how) != 3:
                raise arguments.refuse(how, what, "a dimension, (dimension, part, parts), or None")
            dimension, part, parts = (arguments.whole(each, what) for each in how)
            if not 0 <= part < parts:
                raise arguments.refuse(how, what, "a part below the number of parts")
            return Cut(dimension, part, parts)
        return Cut(arguments.whole(how, what), self.rank, self.world)

    def _by_convention(self, tensor: Tensor, heads: tuple[int, int]) -> Cut | None:
        *_, layer, parameter = ("", "", *tensor.name.split("."))
        size = max(tensor.shape, default=1)
        if size == 1 or "norm" in layer or layer.startswith("ln_") or layer in WHOLE or parameter == "input_scale":
            return None
        if parameter in LIKE_WEIGHTS or parameter == "bias":
            if layer in COLUMNS:
                return self._shared(tensor, layer, heads)
            if layer in ROWS:
                if len(tensor.shape) < 2 or tensor.shape[1] == 1:  # a bias, or a scale for each output
                    return None
                self._check_queries(tensor, layer, heads[0])
                return Cut(1, self.rank, self.world)
        raise UsageError(
            detail=f"tensor {tensor.name!r} of shape {list(tensor.shape)} has no name that tells how ranks share it; "
            f"say so with cut=, such as cut={{{tensor.name!r}: 0}}, or None for all of it"
        )

    def _shared(self, tensor: Tensor, layer: str, heads: tuple[int, int]) -> Cut:
        """Along the outputs. Fewer heads of keys and values than ranks: each head goes to several ranks."""
        queries, keys = heads
        self._check_queries(tensor, layer, queries)
        if layer in KEYS_VALUES and keys:
            if keys < self.world and self.world % keys == 0:
                return Cut(0, self.rank * keys // self.world, keys)
            if keys % self.world:
                raise self._unshared(tensor, keys)
        return Cut(0, self.rank, self.world)

    def _check_queries(self, tensor: Tensor, layer: str, queries: int) -> None:
        if layer in QUERIES and queries % self.world:
            raise self._unshared(tensor, queries)

    def _unshared(self, tensor: Tensor, heads: int) -> UsageError:
        return UsageError(detail=f"the {heads} heads of tensor {tensor.name!r} cannot be shared by {self.world} ranks")
