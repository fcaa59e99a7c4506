"""Two real vLLM engines on our connector: one computes prompts, the other takes them from the pool, whatever befalls it.

In the order of the file: what is killed stays dead for the tests behind.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.serving import tiny_model
from tests.serving.conftest import ROOT, CommandMaster, Start, words
from tests.serving.engines import BLOCK, Engine
from tests.serving.pairs import MOST, through_the_store

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]


def ours(role: str, **extra: Any) -> dict[str, Any]:
    """Our connector, told nothing but its role."""
    return {
        "kv_connector": "MooncakeStoreConnector",
        "kv_connector_module_path": "p2pstore.integrations.vllm",
        "kv_role": role,
        "kv_connector_extra_config": extra,
    }


def as_told(start: Start, master: CommandMaster, model: Path, directory: Path, role: str, name: str) -> Engine:
    """An engine that is started as ``mooncake serve init`` says."""
    command = [
        sys.executable, "-m", "mooncake_cli", "serve", "init", "vllm", str(model), "--json", "--role", role,
        "--block-size", str(BLOCK), "--master", master.address, "--segment-size", "128MiB", "--dir", str(directory),
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=True
    )
    *exports, serve = json.loads(done.stdout)["commands"]
    variables = dict(shlex.split(each.removeprefix("export "))[0].split("=", 1) for each in exports)
    options, _, transfer = serve.removeprefix(f"vllm serve {model} ").partition(" --kv-transfer-config ")
    file = Path(shlex.split(transfer.removeprefix('"$(cat ').removesuffix(')"'))[0])
    return start(
        name,
        weights=model,
        transfer=json.loads(file.read_text()),
        variables=variables,
        arguments=shlex.split(options),
    )


@pytest.fixture(scope="module")
def engines(
    start: Start, master: CommandMaster, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Engine, Engine]:
    """One that computes and one that takes. They start before there is a master, and find it later."""
    directory = tmp_path_factory.mktemp("told")
    master.kill()
    producer = as_told(start, master, model, directory / "p", "producer", "producer")
    consumer = as_told(start, master, model, directory / "c", "consumer", "consumer")
    producer.wait()
    consumer.wait()
    master.start()
    return producer, consumer


def test_most_of_a_prompt_comes_from_the_store_and_the_answer_is_the_same(
    engines: tuple[Engine, Engine], prompt: list[int]
) -> None:
    pairs = through_the_store(*engines, prompt)
    assert all(computed.cached == 0 for computed, _ in pairs)


def test_other_weights_under_the_same_name_are_not_found(
    engines: tuple[Engine, Engine], start: Start, master: CommandMaster, tmp_path: Path, prompt: list[int]
) -> None:
    """vLLM's own connector takes 1,408 of 1,500 tokens from the wrong model."""
    producer, _ = engines
    computed = producer.ask(prompt)
    weights = tiny_model.make(tmp_path / "tiny", seed=1)
    other = as_told(start, master, weights, tmp_path / "told", "both", "other").wait()
    try:
        taken = other.ask(prompt)
        assert taken.cached == 0
        assert taken.text != computed.text
        again = other.ask(prompt)
        assert (again.text, again.cached >= MOST) == (taken.text, True), "it has them itself by now"
    finally:
        other.end()


def test_a_dead_master_is_a_miss_and_one_that_is_back_is_used(
    engines: tuple[Engine, Engine], master: CommandMaster, prompt: list[int]
) -> None:
    producer, consumer = engines
    master.kill()
    computed = producer.ask(prompt)
    taken = consumer.ask(prompt)
    assert (taken.text, taken.finish, taken.cached) == (computed.text, "length", 0)
    master.start()
    through_the_store(producer, consumer, prompt)


def test_blocks_whose_owner_is_dead_are_computed(engines: tuple[Engine, Engine], prompt: list[int]) -> None:
    """vLLM's default ends such requests with an error."""
    producer, consumer = engines
    computed = producer.ask(prompt)
    time.sleep(1.0)
    producer.kill()
    taken = consumer.ask(prompt)
    assert (taken.text, taken.finish) == (computed.text, "length")
    again = consumer.ask(words("after"))
    assert again.finish == "length"
