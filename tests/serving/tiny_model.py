"""A Llama so small that it runs anywhere, with random weights, as files: two of the same seed are the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, INNER, WORDS = 256, 4, 4, 2, 64, 512, 1024
LENGTH = 4096

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "vocab_size": WORDS,
    "max_position_embeddings": LENGTH,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def make(directory: Path, seed: int = 0) -> Path:
    """Write config.json, weights and a tokenizer whose words are w0 to w1023."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LENGTH, "unk_token": "w0"})
    )
    save(directory / "model.safetensors", weights(seed))
    return directory


def weights(seed: int) -> dict[str, np.ndarray]:
    """Random ones, by their names."""
    random = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        return random.normal(0.0, 0.08, shape).astype(np.float32)

    found = {"model.embed_tokens.weight": some(WORDS, HIDDEN), "lm_head.weight": some(WORDS, HIDDEN)}
    found["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{name}.weight"] = np.ones(HIDDEN, np.float32)
        for name, rows in (("q_proj", HEADS * HEAD), ("k_proj", KV_HEADS * HEAD), ("v_proj", KV_HEADS * HEAD)):
            found[f"{at}.self_attn.{name}.weight"] = some(rows, HIDDEN)
        found[f"{at}.self_attn.o_proj.weight"] = some(HIDDEN, HEADS * HEAD)
        found[f"{at}.mlp.gate_proj.weight"] = some(INNER, HIDDEN)
        found[f"{at}.mlp.up_proj.weight"] = some(INNER, HIDDEN)
        found[f"{at}.mlp.down_proj.weight"] = some(HIDDEN, INNER)
    return found


def save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Safetensors: the length of a header of JSON, the header, and the bytes."""
    header: dict[str, object] = {}
    at = 0
    for name, each in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(each.shape), "data_offsets": [at, at + each.nbytes]}
        at += each.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for each in tensors.values():
            file.write(each.tobytes())


def _tokenizer() -> dict[str, object]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {f"w{n}": n for n in range(WORDS)}, "unk_token": "w0"},
    }
