"""What tests with real engines need: vLLM in an environment of its own, our wheel for it, a model, a store.

``make test-serving`` installs vLLM. In a plain run of the tests these are skipped where it is not there.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from engine.cgroups import memory_available
from tests.p2pstore.kv.client.masters import AMaster
from tests.ports import reserved_port
from tests.serving import tiny_model
from tests.serving.engines import ENGINE_BYTES, Engine

ROOT = Path(__file__).resolve().parents[2]

VARIABLE = "MOONCAKE_SERVING_PYTHON"
"""The interpreter of an environment that has vLLM, which ``scripts/test-serving`` sets."""

INSTALL_SECONDS = 300
SEGMENT = "128mb"

Start = Callable[..., Engine]


class CommandMaster(AMaster):
    """``mooncake store master``, which can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "master.log")
        self.metrics = f"127.0.0.1:{reserved_port()}"
        self.start()

    def command(self) -> tuple[list[str], dict[str, str]]:
        places = ["--listen", self.address, "--metrics", self.metrics]
        return [sys.executable, "-m", "mooncake_cli", "store", "master", *places], {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def serving_python() -> Path:
    """An interpreter that has vLLM."""
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip("NO TESTS WITH REAL ENGINES: vLLM is not installed for them; 'make test-serving' does that")
    return Path(named)


@pytest.fixture(scope="session")
def overlay(serving_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, as it is now, for engines to import: with its entry points, and without what it asks for."""
    directory = tmp_path_factory.mktemp("overlay")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*install, "--disable-pip-version-check", "--target", str(directory), str(ROOT)],
        check=True, timeout=INSTALL_SECONDS,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def start(
    serving_python: Path, overlay: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts engines, all of which are ended at the end of the module."""
    made: list[Engine] = []

    def begin(name: str, *, before: Sequence[Path] = (), weights: Path = model, **how: object) -> Engine:
        room = memory_available()
        # Those that do not serve yet will take theirs.
        wanted = ENGINE_BYTES * (1 + sum(not each.serves and each.alive for each in made))
        if room is not None and room < wanted:
            pytest.skip(f"NO TEST WITH SO MANY ENGINES: {room >> 20} MiB are free of {wanted >> 20}; one takes 3 GiB")
        directory = tmp_path_factory.mktemp(name)
        made.append(Engine(serving_python, [*before, overlay], weights, directory, name, **how))  # type: ignore[arg-type]
        return made[-1]

    yield begin
    for each in made:
        each.end()


@pytest.fixture(scope="module")
def master(serving_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandMaster]:
    made = CommandMaster(tmp_path_factory.mktemp("master"))
    yield made
    made.kill()


@pytest.fixture(scope="module")
def mooncake_json(master: CommandMaster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that lead an engine to the store."""
    file = tmp_path_factory.mktemp("config") / "mooncake.json"
    file.write_text(
        json.dumps(
            {
                "metadata_server": "P2PHANDSHAKE", "master_server_address": master.address, "protocol": "tcp",
                "device_name": "", "global_segment_size": SEGMENT, "local_buffer_size": SEGMENT,
            }
        )
    )  # fmt: skip
    return {"MOONCAKE_CONFIG_PATH": str(file)}


@pytest.fixture
def prompt(request: pytest.FixtureRequest) -> list[int]:
    """1,500 tokens that no other test has."""
    return words(request.node.name)


def words(seed: object, count: int = 1500) -> list[int]:
    """Token ids of ordinary words."""
    found = random.Random(str(seed))
    return [found.randrange(3, tiny_model.WORDS) for _ in range(count)]
