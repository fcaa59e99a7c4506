"""What prefill, decode and transfers cost, from published figures of models and GPUs. Seconds, tokens, bytes.

Prefill is bound by arithmetic: a prompt of n tokens takes layers·(a·n²·d + b·n·d²) operations, and one whose first p
tokens are reused takes that of n less that of p. Decode is bound by memory: each step reads all weights and all KV
cache of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

PAPER = "Mooncake, FAST'25, table 1"

TABLE = "hardware_spec.md of github.com/citsjtu2020/LLM-Prof"
HUB = "huggingface.co/hardware"
"""Where others wrote down what NVIDIA says of GPUs that it sells in some countries only."""

LLAMA_3 = "Meta-Llama-3-8B: dim 4096, 32 layers, 8 of 32 heads for keys and values, ffn 14336"


class PrefillCost(NamedTuple):
    """Seconds of a prefill: ``fixed`` + ``linear``·(n - p) + ``quadratic``·(n² - p²)."""

    fixed: float
    linear: float
    quadratic: float

    def seconds(self, length: int, reused: int) -> float:
        """For a prompt of ``length`` tokens, the first ``reused`` of which are not computed."""
        return self.fixed + (length - reused) * (self.linear + self.quadratic * (length + reused))


class DecodeCost(NamedTuple):
    """Seconds of a step of the whole batch: ``fixed`` + ``each``·(tokens in it). ``room``: tokens that fit."""

    fixed: float
    each: float
    room: int

    def seconds(self, tokens: float) -> float:
        """For a batch that has so many tokens of context."""
        return self.fixed + self.each * tokens


@dataclass(frozen=True)
class Model:
    """A model's shape. ``quadratic`` and ``linear`` are a and b of its operations; ``kv_bytes`` are for one token."""

    layers: int
    width: int
    quadratic: float
    linear: float
    kv_bytes: int
    weight_bytes: float
    source: str


@dataclass(frozen=True)
class Gpu:
    """One GPU: dense 16-bit operations a second, bytes a second from its memory, bytes of it."""

    flops: float
    memory_rate: float
    memory: float
    source: str


MODELS = {
    "llama-2-70b": Model(80, 8192, 4, 22, 80 * 2 * 8 * 128 * 2, 140e9, f"{PAPER} (its 'dummy' model); 16-bit weights"),
    "llama-3-8b": Model(
        32,
        4096,
        4,
        26,
        32 * 2 * 8 * 128 * 2,
        16.06e9,
        f"{LLAMA_3}; 8.03e9 parameters of 16 bits; b: 2·(2 + 2/4) + 6·14336/4096",
    ),
}

GPUS = {
    "a800": Gpu(312e12, 2.039e12, 80e9, f"{PAPER}; memory: {TABLE}, NVIDIA_A800_SXM4_80GB"),
    "h800": Gpu(989e12, 3.35e12, 80e9, f"{TABLE}: NVIDIA_H800"),
    "h20": Gpu(148e12, 4.0e12, 96e9, f"{TABLE}: NVIDIA_H20_SXM5_96GB, rounded; {HUB}/h20"),
}


@dataclass(frozen=True)
class Costs:
    """One kind of instance: ``gpus`` GPUs that work on one model together.

    ``arithmetic_used`` and ``memory_used`` are the parts of the data sheets' rates that are reached, and ``fixed`` the
    seconds that a prefill takes however short it is: assumptions, not measured. ``network`` is each instance's link,
    bytes a second; ``cache`` the tokens of KV cache that a prefill instance keeps (1 TB of the 70B model's).
    """

    model: Model = MODELS["llama-2-70b"]
    gpu: Gpu = GPUS["a800"]
    gpus: int = 8
    arithmetic_used: float = 0.5
    memory_used: float = 0.6
    fixed: float = 0.02
    network: float = 100e9
    cache: int = 3_000_000

    def __post_init__(self) -> None:
        if self.gpus < 1 or not (0 < self.arithmetic_used <= 1 and 0 < self.memory_used <= 1):
            raise ValueError(
                f"{self.gpus} GPUs are too few: an instance needs at least one, and uses a part of it between 0 and 1"
            )
        if self.network <= 0 or self.cache < 0:
            raise ValueError(
                "an instance needs a network faster than 0 bytes a second, and a cache of 0 tokens or more"
            )
        if self.decode.room < 1:
            raise ValueError(
                f"the model's weights do not fit into the memory of {self.gpus} such GPUs: give an instance more"
            )

    @property
    def prefill(self) -> PrefillCost:
        """Of one prompt at a time."""
        model = self.model
        rate = self.gpu.flops * self.gpus * self.arithmetic_used
        linear = model.layers * model.linear * model.width**2 / rate
        return PrefillCost(self.fixed, linear, model.layers * model.quadratic * model.width / rate)

    @property
    def decode(self) -> DecodeCost:
        """Of one step; what the weights leave of nine tenths of the memory is for KV cache."""
        rate = self.gpu.memory_rate * self.gpus * self.memory_used
        room = (0.9 * self.gpu.memory * self.gpus - self.model.weight_bytes) / self.model.kv_bytes
        return DecodeCost(self.model.weight_bytes / rate, self.model.kv_bytes / rate, int(room))

    @property
    def transfer(self) -> float:
        """Seconds that the KV cache of one token takes from one instance to another."""
        return self.model.kv_bytes / self.network
