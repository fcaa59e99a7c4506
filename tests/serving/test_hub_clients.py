"""transformers, safetensors and vLLM, as released, through the endpoints of two agents: only the first reaches the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.p2pstore.hub.stand_in import StandIn
from tests.serving.conftest import ROOT, Start, words

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]

NAME = "org/tiny"
WEIGHTS = "model.safetensors"
LOAD_SECONDS = 600
"""For transformers to be imported, most of it, and to load a tiny model."""

LOADS = """
import hashlib, json, sys
from huggingface_hub import hf_hub_download
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

def named(tensors):
    return {name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest() for name, tensor in tensors}

where, = sys.argv[1:]
config = AutoConfig.from_pretrained(where).to_dict()
config.pop("_name_or_path", None)
tokens = AutoTokenizer.from_pretrained(where)("w5 w7 w1023 other")["input_ids"]
model = AutoModelForCausalLM.from_pretrained(where)
file = f"{where}/model.safetensors" if where.startswith("/") else hf_hub_download(where, "model.safetensors")
with safe_open(file, framework="pt") as opened:
    stored = named((name, opened.get_tensor(name)) for name in opened.keys())
print(json.dumps({"config": config, "tokens": tokens, "model": named(model.state_dict().items()), "file": stored}))
"""
"""What programs do with a model: its configuration, its tokenizer, its weights, and a file of them by itself."""


@pytest.fixture(scope="module")
def hub(model: Path, serving_python: Path) -> Iterator[StandIn]:
    """Has the model; not asked for anything that a test of it alone would not ask."""
    made = StandIn()
    made.repos[NAME] = {path.name: path.read_bytes() for path in model.iterdir()}
    yield made
    made.close()


@pytest.fixture(scope="module")
def endpoints(hub: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Of the agent that knows the hub, and of the one that does not."""
    homes = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "MOONCAKE_"))}
    served = {**plain, "PYTHONPATH": str(ROOT), "MOONCAKE_HF_ENDPOINT": "127.0.0.1:0"}

    def mooncake(home: Path, *arguments: str, **more: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "mooncake_cli", "--home", str(home), *arguments, "--json"],
            env={**served, **more}, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    try:
        first = mooncake(homes[0], "node", "start", MOONCAKE_HF_UPSTREAM=hub.url)
        second = mooncake(homes[1], "--metadata", first["metadata"], "node", "start")
        yield first["hf_endpoint"], second["hf_endpoint"]
    finally:
        for home in reversed(homes):
            mooncake(home, "node", "stop")


def as_client(endpoint: str, cache: Path) -> dict[str, str]:
    """The variables of a program that reads the hub there, and keeps what it read in a cache of its own."""
    return {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "2",
    }  # fmt: skip


def begin(python: Path, where: str, variables: Mapping[str, str]) -> subprocess.Popen[str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if key in os.environ}
    return subprocess.Popen(
        [python, "-c", LOADS, where], env={**kept, **variables}, cwd="/",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def load(serving_python: Path) -> Callable[..., dict[str, Any]]:
    """What a program finds that loads a model of that name, or from that directory."""

    def found(where: str, variables: Mapping[str, str]) -> dict[str, Any]:
        process = begin(serving_python, where, variables)
        try:
            out, said = process.communicate(timeout=LOAD_SECONDS)
        finally:
            process.kill()
        assert process.returncode == 0, said[-3000:]
        return json.loads(out.splitlines()[-1])

    return found


@pytest.fixture(scope="module")
def expected(load: Callable[..., dict[str, Any]], model: Path) -> dict[str, Any]:
    """What it finds in the files themselves."""
    return load(str(model), {"HF_HUB_OFFLINE": "1"})


def test_a_program_that_is_killed_loads_the_model_when_it_begins_again(
    serving_python: Path,
    hub: StandIn,
    endpoints: tuple[str, str],
    load: Callable[..., dict[str, Any]],
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    """The hub, which had sent the weights to their middle, is not asked for that half again."""
    variables = as_client(endpoints[0], tmp_path)
    hub.hold.clear()
    process = begin(serving_python, NAME, variables)
    try:
        deadline = time.monotonic() + LOAD_SECONDS
        while not (hub.sent[WEIGHTS] and [*tmp_path.rglob("*.incomplete")]):
            assert process.poll() is None, process.communicate()[1][-3000:]
            assert time.monotonic() < deadline, "nothing of the weights is sent"
            time.sleep(0.1)
    finally:
        process.kill()
        process.communicate()
        hub.hold.set()
    assert load(NAME, variables) == expected
    assert hub.sent[WEIGHTS] == len(hub.repos[NAME][WEIGHTS])


def test_transformers_and_safetensors_where_the_hub_is_not_known(
    hub: StandIn,
    endpoints: tuple[str, str],
    load: Callable[..., dict[str, Any]],
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    load(NAME, as_client(endpoints[0], tmp_path / "first"))  # whichever test came before
    hub.down = True
    try:
        assert load(NAME, as_client(endpoints[1], tmp_path / "second")) == expected
    finally:
        hub.down = False
    read = {path: len(hub.repos[NAME][path]) for path in ("config.json", "tokenizer.json", WEIGHTS)}
    assert {path: hub.sent[path] for path in read} == read, "each once, for both"


def test_vllm_where_the_hub_is_not_known(
    start: Start,
    model: Path,
    load: Callable[..., dict[str, Any]],
    endpoints: tuple[str, str],
    hub: StandIn,
    tmp_path: Path,
) -> None:
    """The answers are those of the files."""
    load(NAME, as_client(endpoints[0], tmp_path / "first"))
    hub.down = True
    answers = []
    try:
        for name, weights, variables in (
            ("files", model, {}),
            ("endpoint", Path(NAME), as_client(endpoints[1], tmp_path / "second")),
        ):
            engine = start(name, weights=weights, variables=variables).wait()
            try:
                answers.append([engine.ask(words(seed, 300)).text for seed in ("one", "two")])
            finally:
                engine.end()
    finally:
        hub.down = False
    assert answers[0] == answers[1]
    (came,) = (tmp_path / "second").rglob(f"snapshots/*/{WEIGHTS}")
    assert came.read_bytes() == (model / WEIGHTS).read_bytes()
