"""What each engine is told: the same fingerprint everywhere, and commands that a shell takes apart again."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from p2pstore.errors import UsageError
from p2pstore.integrations.fingerprint import Fingerprint
from p2pstore.integrations.plans import ENGINES, Wishes, plan

FINGERPRINT = Fingerprint("w0123456789abcdef", "bfloat16", 16, "sha256", "0")
WISHES = Wishes(Path("/models/o'hara 3"), FINGERPRINT, "10.0.0.1:50051", Path("/etc/my mooncake"), segment_size=1 << 30)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_store_and_the_prefix_are_in_all(engine: str) -> None:
    files, commands = plan(engine, WISHES)
    store = files["mooncake.json"]
    assert store["master_server_address"] == "10.0.0.1:50051"
    assert store["global_segment_size"] == 1 << 30
    assert store["cache_prefix"] == FINGERPRINT.text
    others = [json.dumps(document) for name, document in files.items() if name != "mooncake.json"]
    assert any(FINGERPRINT.text in each for each in others)
    assert commands[:2] == ("export MOONCAKE_CONFIG_PATH='/etc/my mooncake/mooncake.json'", "export PYTHONHASHSEED=0")


@pytest.mark.parametrize("engine", ENGINES)
def test_commands_are_a_shells(engine: str, tmp_path: Path) -> None:
    """Run with programs that show what they are given."""
    directory = tmp_path / "my mooncake"
    directory.mkdir()
    made = plan(engine, WISHES._replace(directory=directory))
    for name, document in made.files.items():
        (directory / name).write_text(json.dumps(document))
    for name in ("vllm", "python"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nfor each in "$@"; do printf "%s\\0" "$each"; done\n')
        program.chmod(0o755)
    done = subprocess.run(
        ["sh", "-euc", "\n".join(made.commands)],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    given = done.stdout.split("\0")
    assert "/models/o'hara 3" in given
    assert "bfloat16" in given
    own = next(name for name in made.files if name in {"vllm.json", "sglang.json"})
    assert json.loads(given[-2]) == made.files[own]


def test_vllm() -> None:
    files, commands = plan(
        "vllm", WISHES._replace(role="producer", fingerprint=FINGERPRINT._replace(dtype="bfloat16+fp8"))
    )
    document = files["vllm.json"]
    assert document["kv_role"] == "kv_producer"
    assert document["kv_load_failure_policy"] == "recompute"
    words = shlex.split(commands[-1].partition(' --kv-transfer-config "')[0])
    assert words == [
        "vllm", "serve", "/models/o'hara 3", "--dtype", "bfloat16", "--block-size", "16",
        "--prefix-caching-hash-algo", "sha256", "--kv-cache-dtype", "fp8",
    ]  # fmt: skip


def test_no_seed_is_none() -> None:
    _, commands = plan("vllm", WISHES._replace(fingerprint=FINGERPRINT._replace(seed="")))
    assert not any("PYTHONHASHSEED" in each for each in commands)


def test_an_engine_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="'vlm' is none of vllm, sglang, lmcache"):
        plan("vlm", WISHES)
