from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from p2pstore.integrations import fingerprint
from tests.cli.conftest import ROOT, Mooncake
from tests.cli.printed_commands import parse


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "llama"
    directory.mkdir()
    (directory / "config.json").write_text('{"torch_dtype": "float32"}')
    (directory / "model.safetensors").write_bytes(os.urandom(100_000))
    (directory / "README.md").write_text("words")
    return directory


def test_files_and_commands(mooncake: Mooncake, model: Path, tmp_path: Path) -> None:
    done = mooncake("serve", "init", "vllm", str(model), "--master", "10.0.0.1", "--dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert done.stderr.splitlines() == [f"wrote {out}/mooncake.json", f"wrote {out}/vllm.json"]
    store = json.loads((out / "mooncake.json").read_text())
    prefix = store["cache_prefix"]
    found = fingerprint.parse(prefix)
    assert found is not None
    assert found._replace(weights="") == ("", "float32", 16, "sha256", "0")
    assert (store["master_server_address"], store["global_segment_size"]) == ("10.0.0.1:50051", 4 << 30)
    assert json.loads((out / "vllm.json").read_text())["kv_connector_extra_config"] == {"cache_prefix": prefix}
    start = f"vllm serve {model} --dtype float32 --block-size 16 --prefix-caching-hash-algo sha256 "
    start += f'--kv-transfer-config "$(cat {out}/vllm.json)"'
    assert done.stdout.splitlines() == [
        f"export MOONCAKE_CONFIG_PATH={out}/mooncake.json",
        "export PYTHONHASHSEED=0",
        start,
    ]


@pytest.mark.parametrize(("engine", "size"), [("vllm", 16), ("sglang", 64), ("lmcache", 256)])
def test_each_engine_as_json(mooncake: Mooncake, model: Path, engine: str, size: int) -> None:
    done = mooncake("serve", "init", engine, str(model), "--json", "--role", "consumer", "--hash-seed", "07")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    found = fingerprint.parse(answer["cache_prefix"])
    assert found is not None
    assert (found.block_size, found.seed) == (size, "7")
    assert all(Path(each).is_file() for each in answer["files"])
    assert answer["commands"][1] == "export PYTHONHASHSEED=7"


def prefix(mooncake: Mooncake, model: Path, *options: str) -> str:
    done = mooncake("serve", "init", "vllm", str(model), "--json", "--force", *options)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["cache_prefix"])


def test_the_weights_decide_and_nothing_beside_them(mooncake: Mooncake, model: Path) -> None:
    first = prefix(mooncake, model)
    (model / "README.md").unlink()
    (model / "original").mkdir()
    (model / "original" / "consolidated.pth").write_bytes(b"1")
    for each in model.rglob("*.safetensors"):
        each.chmod(0o600)
    assert prefix(mooncake, model) == first
    assert prefix(mooncake, model.rename(model.with_name("other"))) == first
    model = model.with_name("other")
    assert prefix(mooncake, model, "--dtype", "float16") == first.replace("float32", "float16")
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[77_777] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    assert prefix(mooncake, model) != first


def test_what_is_there_stays_unless_it_is_to_be_replaced(mooncake: Mooncake, model: Path, tmp_path: Path) -> None:
    cwd = tmp_path / "cwd"
    assert mooncake("serve", "init", "vllm", str(model)).returncode == 0
    assert mooncake("serve", "init", "vllm", str(model)).returncode == 0, "the same may be said again"
    (cwd / "vllm.json").write_text("{}")
    before = (cwd / "mooncake.json").read_text()
    done = mooncake("serve", "init", "vllm", str(model), "--block-size", "32")
    assert done.returncode == 2
    assert "mooncake.json says something else; give --force to replace it, or another --dir" in done.stderr
    assert (cwd / "mooncake.json").read_text() == before
    assert (cwd / "vllm.json").read_text() == "{}"
    assert mooncake("serve", "init", "vllm", str(model), "--force").returncode == 0
    assert (cwd / "vllm.json").read_text() != "{}"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["vlm", "MODEL"], 2, "'vlm' is none of vllm, sglang, lmcache"),
        (["vllm", "MODEL/none"], 3, "none"),
        (["vllm", "MODEL", "--role", "x"], 2, "'x' is none of both, producer, consumer"),
        (["vllm", "MODEL", "--protocol", "ib"], 2, "neither tcp nor rdma"),
        (["vllm", "MODEL", "--hash-seed", "random"], 2, "Python takes 0 to 4294967295"),
        (["vllm", "MODEL", "--segment-size", "much"], 2, "--segment-size"),
        (["vllm", "MODEL", "--segment-size", "0"], 2, "0 bytes are nothing to give"),
        (["vllm", "MODEL", "--dtype", "a@b"], 2, "cannot be part of a key"),
    ],
)
def test_slips(mooncake: Mooncake, model: Path, arguments: list[str], code: int, said: str) -> None:
    done = mooncake("serve", "init", *(each.replace("MODEL", str(model)) for each in arguments))
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_checkpoint_that_does_not_say_its_type(mooncake: Mooncake, model: Path) -> None:
    (model / "config.json").write_text("{}")
    done = mooncake("serve", "init", "vllm", str(model))
    assert done.returncode == 2
    assert "give --dtype" in done.stderr
    assert "float16" in prefix(mooncake, model, "--dtype", "float16")


def test_a_directory_without_weights(mooncake: Mooncake, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = mooncake("serve", "init", "vllm", str(tmp_path / "empty"), "--dtype", "float16")
    assert done.returncode != 0
    assert "no file in it fits" in done.stderr


def test_weights_that_are_not_there_are_told_of(mooncake: Mooncake, model: Path) -> None:
    """The files are written: who loads dummy weights knows why."""
    whole = mooncake("serve", "init", "vllm", str(model), "--quiet")
    assert "warning" not in whole.stderr
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    done = mooncake("serve", "init", "vllm", str(model), "--force")
    assert done.returncode == 0
    assert "model.safetensors.index.json names 1 file that is not there (model-2.safetensors): " in done.stderr
    for each in model.glob("model*"):
        each.unlink()
    done = mooncake("serve", "init", "vllm", str(model), "--force")
    assert done.returncode == 0
    assert f"warning: {model} has no weights at its top (*.safetensors, " in done.stderr
    assert "engines with other weights would have the same prefix" in done.stderr


def test_the_commands_in_the_documents_are_ones() -> None:
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8").partition("## vLLM on the pooled store")[2]
    commands = re.findall(r"^(mooncake [^#\n]*)", text.partition("\n## ")[0], re.MULTILINE)
    assert [parse(each.strip()) for each in commands] == [["store", "master"], ["serve", "init"], ["store", "why"]]
