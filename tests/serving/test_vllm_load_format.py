"""A real vLLM that loads its weights from another node: the same answers as from files, and no file of weights here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import tiny_model
from tests.serving.conftest import ROOT, Start, words
from tests.serving.engines import ANSWER_SECONDS, Engine

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]

FAILS_SECONDS = 300
"""For an engine to end that cannot start; most of it is what it takes to get so far."""

SECRET = {"MOONCAKE_SECRET": "that the engines' state directories have not"}

Mooncake = Callable[..., Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def mooncake(home: Path, serving_python: Path) -> Iterator[Mooncake]:
    """The command; the agent that it starts holds what is registered."""

    def run(*arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "mooncake_cli", *arguments, "--json"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "MOONCAKE_HOME": str(home), **SECRET},
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    run("node", "start")
    yield run
    run("node", "stop")


@pytest.fixture(scope="module")
def bare(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an engine has of the model: its configuration, and its tokenizer."""
    made = tmp_path_factory.mktemp("bare") / "tiny"
    shutil.copytree(model, made, ignore=shutil.ignore_patterns("*.safetensors"))
    return made


@pytest.fixture(scope="module")
def from_peers(start: Start, home: Path) -> Callable[..., Engine]:
    def begin(name: str, weights: Path, *more: str, **extra: Any) -> Engine:
        told = ["--load-format", "mooncake", "--model-loader-extra-config", json.dumps(extra)]
        return start(
            name,
            weights=weights,
            variables={"MOONCAKE_HOME": str(home), "VLLM_SERVER_DEV_MODE": "1", **SECRET},
            arguments=[*told, *more],
        )

    return begin


def tell(engine: Engine, path: str, **body: Any) -> None:
    request = urllib.request.Request(
        f"http://{engine.address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()


def last_words(engine: Engine) -> str:
    """What an engine said that ended by itself."""
    deadline = time.monotonic() + FAILS_SECONDS
    while engine.alive:
        assert time.monotonic() < deadline, engine.last_words()
        time.sleep(0.5)
    return engine.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def answers(start: Start, model: Path) -> dict[str, str]:
    """Of an engine that has the files."""
    engine = start("files", weights=model).wait()
    try:
        return {seed: engine.ask(words(seed, 300)).text for seed in ("one", "two", "three")}
    finally:
        engine.end()


def test_the_answers_are_those_of_the_files(
    answers: dict[str, str],
    mooncake: Mooncake,
    from_peers: Callable[..., Engine],
    model: Path,
    bare: Path,
    tmp_path: Path,
) -> None:
    """And those of new weights under the same name, when it is told to load them again."""
    others = tiny_model.make(tmp_path / "others", seed=1)
    engine = None
    try:
        for weights, same in ((model, True), (others, False), (model, True)):
            mooncake("register", str(weights), "--name", "tiny", "--force")
            if engine is None:
                engine = from_peers("peers", bare).wait()
            else:
                tell(engine, "/collective_rpc", method="reload_weights")
                tell(engine, "/reset_prefix_cache")
            found = {seed: engine.ask(words(seed, 300)).text for seed in answers}
            assert (found == answers) is same
    finally:
        if engine is not None:
            engine.end()
    assert "39 tensors of tiny, 11.0 MiB, came and were loaded in" in engine.log.read_text()
    assert not [*bare.rglob("*.safetensors"), *engine.log.parent.rglob("*.safetensors")]


def test_a_head_is_not_left_out_in_silence(
    answers: dict[str, str],
    mooncake: Mooncake,
    from_peers: Callable[..., Engine],
    model: Path,
    bare: Path,
    tmp_path: Path,
) -> None:
    """vLLM looks for one in the files of the model, of which there are none."""
    mooncake("register", str(model), "--name", "models/tied")
    tied = tmp_path / "tied"
    shutil.copytree(bare, tied)
    (tied / "config.json").write_text(json.dumps({**tiny_model.CONFIG, "tie_word_embeddings": True}))
    said = last_words(from_peers("tied", tied, object="models/tied"))
    assert "'lm_head.weight' of models/tied is another tensor than its embeddings" in said
    engine = from_peers("untied", tied, "--hf-overrides", '{"tie_word_embeddings": false}', object="models/tied").wait()
    try:
        assert engine.ask(words("one", 300)).text == answers["one"]
    finally:
        engine.end()


def test_an_engine_without_its_object_ends_and_says_why(
    mooncake: Mooncake, from_peers: Callable[..., Engine], bare: Path
) -> None:
    mooncake("list")
    said = last_words(from_peers("absent", bare, object="models/other"))
    assert "cannot be loaded: no object is named 'models/other'; run 'mooncake list' to see what there is" in said


def test_a_checkpoint_that_lacks_a_layers_weights(
    mooncake: Mooncake, from_peers: Callable[..., Engine], bare: Path, tmp_path: Path
) -> None:
    """vLLM itself would start, and answer with what was in that layer's memory before."""
    weights = tiny_model.weights(0)
    del weights["model.layers.3.mlp.down_proj.weight"]
    tiny_model.save(tmp_path / "model.safetensors", weights)
    mooncake("register", str(tmp_path), "--name", "models/less")
    said = last_words(from_peers("less", bare, object="models/less"))
    assert "object 'models/less' has nothing for model.layers.3.mlp.down_proj.weight of the model" in said
