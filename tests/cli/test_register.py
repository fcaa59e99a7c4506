from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pstore.errors import ObjectExists
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, FakeAgent, progress, register_result


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "cwd" / "llama"
    source.mkdir(parents=True)
    return source


def test_people_are_told_what_was_published(agent: FakeAgent, mooncake: Mooncake, source: Path) -> None:
    agent.answers["POST /v1/register"] = [progress(1, 10), register_result()]
    done = mooncake("register", "llama", "--name", "models/llama")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "registered models/llama: 10.0 MiB, 2 files, 11 chunks of 1.0 MiB, in 2.0 s, 5.0 MiB/s\n"
        "manifest 3f786850e387; elsewhere: mooncake get models/llama DEST\n"
    )


def test_json_has_the_promised_keys(agent: FakeAgent, mooncake: Mooncake, source: Path) -> None:
    agent.answers["POST /v1/register"] = [register_result()]
    done = mooncake("register", "llama", "--name", "models/llama", "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert list(document) == ["name", "manifest", "size", "chunk_size", "chunks", "files", "seconds"]
    assert document["manifest"] == DIGEST


def test_quiet_prints_the_name(agent: FakeAgent, mooncake: Mooncake, source: Path) -> None:
    agent.answers["POST /v1/register"] = [register_result()]
    done = mooncake("-q", "register", "llama")
    assert (done.stdout, done.stderr) == ("models/llama\n", "")


def test_the_agent_is_asked_for_what_was_said(agent: FakeAgent, mooncake: Mooncake, source: Path) -> None:
    agent.answers["POST /v1/register"] = [register_result()]
    mooncake("register", "./llama/", "--chunk-size", "4MiB", "--hash", "blake3", "--force")
    assert agent.body_of("POST /v1/register") == {
        "path": str(source),
        "name": "llama",
        "chunk_size": 4 << 20,
        "hash": "blake3",
        "force": True,
    }


def test_the_configuration_counts(agent: FakeAgent, mooncake: Mooncake, source: Path) -> None:
    agent.answers["POST /v1/register"] = [register_result()]
    (source.parent / "mooncake.toml").write_text('chunk_size = "8MiB"\nhash = "blake3"\n')
    mooncake("register", "llama")
    body = agent.body_of("POST /v1/register")
    assert (body["chunk_size"], body["hash"]) == (8 << 20, "blake3")


def test_a_basename_that_is_no_name_asks_for_one(agent: FakeAgent, mooncake: Mooncake, source: Path) -> None:
    (source.parent / "my model").mkdir()
    done = mooncake("register", "my model")
    assert done.returncode == 2
    assert "'my model' cannot name an object (it has a character that is not allowed)" in done.stderr
    assert "--name" in done.stderr
    assert len(agent.requests) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["missing"], 3, "missing does not exist"),
        (["llama", "--name", "../x"], 2, "'.' and '..' are not allowed"),
        (["llama", "--name", "/x"], 2, "empty part"),
        (["llama", "--name", ""], 2, "it is empty"),
        (["llama", "--name", "n" * 256], 2, "longer than 255 bytes"),
        (["llama", "--chunk-size", "0"], 2, "--chunk-size: '0' is not a power of two"),
        (["llama", "--hash", "md5"], 2, "--hash: 'md5' is none of"),
        ([], 2, "Missing argument 'PATH'"),
    ],
)
def test_bad_input_never_reaches_the_agent(
    agent: FakeAgent, mooncake: Mooncake, source: Path, arguments: list[str], status: int, words: str
) -> None:
    done = mooncake("register", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert len(agent.requests) == 0


def test_a_taken_name_is_refused_with_advice(agent: FakeAgent, mooncake: Mooncake, source: Path) -> None:
    agent.answers["POST /v1/register"] = [progress(1, 1), ObjectExists(name="llama")]
    done = mooncake("register", "llama")
    assert done.returncode == 7
    assert done.stderr == (
        "error: an object named 'llama' with other content exists\n"
        "hint: choose another --name, or replace it with --force\n"
    )
