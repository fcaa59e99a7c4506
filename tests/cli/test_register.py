from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import MooncakeError, ObjectExists, to_wire
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, FakeAgent, HangUntilCancelled, progress, register_result


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


@pytest.mark.parametrize(
    ("origin", "where", "given_up"),
    [
        ("https://h.example/m.bin?a=geheim", "origins/", "origins/"),
        ("hf://org/m", "origins/ and hf/blobs/", "origins/ hf/blobs/"),
    ],
)
def test_ctrl_c_says_what_stays_of_an_origin(
    agent: FakeAgent, environment: dict[str, str], tmp_path: Path, origin: str, where: str, given_up: str
) -> None:
    agent.answers["POST /v1/register-origin"] = [{"event": "note", "text": "bringing now"}, HangUntilCancelled()]
    command = [sys.executable, "-m", "mooncake_cli", "register", origin]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "bringing now\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == (
        f"interrupted; what has come stays on this node, below {where}: run the same command again to go on from there, "
        f"or 'mooncake unregister {given_up} --delete --last-copies' to give up all that this node has of origins\n"
    )
    assert agent.cancelled.wait(60)


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
        ([""], 2, "PATH is empty"),
        (["llama", "--name", "n" * 256], 2, "longer than 255 bytes"),
        (["llama", "--chunk-size", "0"], 2, "--chunk-size: '0' is not a power of two"),
        (["llama", "--hash", "md5"], 2, "--hash: 'md5' is none of"),
        ([], 2, "Missing argument 'PATH...'"),
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


def many_result(names: list[str], failed: list[tuple[str, MooncakeError]] | None = None) -> dict[str, Any]:
    made = [{k: v for k, v in register_result(name=name).items() if k not in {"event", "seconds"}} for name in names]
    return {
        "event": "result",
        "objects": made,
        "failed": [{"path": f"/{name}", "name": name, "error": to_wire(error)} for name, error in failed or []],
        "size": 3 << 20,
        "seconds": 2.0,
    }


@pytest.fixture
def shards(source: Path) -> Path:
    for name in ("b.bin", "a.bin", "c"):
        (source / name).write_bytes(b"")
    return source


def test_several_are_registered_in_one_call(agent: FakeAgent, mooncake: Mooncake, shards: Path) -> None:
    agent.answers["POST /v1/register-many"] = [progress(1, 2), many_result(["s/b.bin", "s/a.bin"])]
    done = mooncake("register", "llama/b.bin", "llama/a.bin", "--name", "s/", "--hash", "blake3", "--force")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == ("registered 2 objects: 3.0 MiB, in 2.0 s\nelsewhere: mooncake get s/b.bin DEST\n")
    assert agent.body_of("POST /v1/register-many") == {
        "items": [[str(shards / "b.bin"), "s/b.bin"], [str(shards / "a.bin"), "s/a.bin"]],
        "chunk_size": None,
        "hash": "blake3",
        "force": True,
    }


def test_each_entry_of_a_directory_is_registered(agent: FakeAgent, mooncake: Mooncake, shards: Path) -> None:
    agent.answers["POST /v1/register-many"] = [many_result(["a.bin", "b.bin", "c"])]
    done = mooncake("register", "--each", "llama", "--quiet")
    assert (done.stdout, done.stderr) == ("a.bin\nb.bin\nc\n", "")
    items = agent.body_of("POST /v1/register-many")["items"]
    assert items == [[str(shards / name), name] for name in ("a.bin", "b.bin", "c")]


def test_what_failed_is_told_and_the_rest_counts(agent: FakeAgent, mooncake: Mooncake, shards: Path) -> None:
    agent.answers["POST /v1/register-many"] = [many_result(["a.bin"], [("c", ObjectExists(name="c"))])]
    done = mooncake("register", "llama/a.bin", "llama/c")
    assert done.returncode == 10
    assert "/c: an object named 'c' with other content exists\n" in done.stderr
    assert "1 of 2 paths could not be registered" in done.stderr
    document = json.loads(mooncake("register", "llama/a.bin", "llama/c", "--json").stdout)
    assert [one["name"] for one in document["objects"]] == ["a.bin"]
    assert [one["error"]["type"] for one in document["failed"]] == ["ObjectExists"]


def test_where_nothing_was_registered_the_first_error_counts(
    agent: FakeAgent, mooncake: Mooncake, shards: Path
) -> None:
    agent.answers["POST /v1/register-many"] = [many_result([], [(n, ObjectExists(name=n)) for n in ("a.bin", "c")])]
    assert mooncake("register", "llama/a.bin", "llama/c").returncode == 7


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["llama/a.bin", "llama/c", "--name", "x"], 2, "'--name x/' goes before each"),
        (["llama/a.bin", "llama/c", "--name", "../"], 2, "'.' and '..' are not allowed"),
        (["llama/c", "llama/../llama/c"], 2, "would both be named 'c'"),
        (["llama/c", "none"], 3, "none does not exist"),
        (["--each", "none"], 3, "none does not exist"),
        (["--each", ""], 2, "PATH is empty"),
        (["llama/c", ""], 2, "PATH is empty"),
        (["llama/a.bin", "llama/c", "--name", ""], 2, "--name is empty"),
        (["--each", "llama/c"], 2, "llama/c is no directory"),
        (["--each", "empty"], 2, "there is nothing in empty"),
    ],
)
def test_bad_input_of_many_never_reaches_the_agent(
    agent: FakeAgent, mooncake: Mooncake, shards: Path, arguments: list[str], status: int, words: str
) -> None:
    (shards.parent / "empty").mkdir()
    done = mooncake("register", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert len(agent.requests) == 0


def test_what_is_taken_of_a_directory(agent: FakeAgent, mooncake: Mooncake, source: Path) -> None:
    agent.answers["POST /v1/register"] = [register_result()]
    mooncake("register", "llama", "--exclude", "*.bin", "--include", "*.json", "--exclude=tmp/", "--all")
    body = agent.body_of("POST /v1/register")
    assert (body["exclude"], body["include"], body["all"]) == (["*.bin", "tmp/"], ["*.json"], True)


def test_a_pattern_that_is_none_never_reaches_the_agent(agent: FakeAgent, mooncake: Mooncake, source: Path) -> None:
    done = mooncake("register", "llama", "--exclude", "[z-a]")
    assert (done.returncode, len(agent.requests)) == (2, 0)
    assert "bad pattern '[z-a]': its brackets make no sense" in done.stderr


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["a.bin", "b"]),
        (["--all"], [".git", "a.bin", "b", "lost+found"]),
        (["--exclude", "*.bin"], ["b"]),
        (["--include", "*.bin"], ["a.bin", "b"]),
    ],
)
def test_entries_are_chosen_in_the_same_way(
    agent: FakeAgent, mooncake: Mooncake, source: Path, options: list[str], names: list[str]
) -> None:
    (source / "a.bin").touch()
    for directory in ("b", ".git", "lost+found"):
        (source / directory).mkdir()
    agent.answers["POST /v1/register-many"] = [many_result(names)]
    mooncake("register", "--each", "llama", *options)
    assert [name for _, name in agent.body_of("POST /v1/register-many")["items"]] == names


@pytest.mark.parametrize("opening", ["<&-", "0>/dev/null"])
def test_standard_input_that_cannot_be_read(agent: FakeAgent, environment: dict[str, str], opening: str) -> None:
    command = f"'{sys.executable}' -m mooncake_cli register - --name n {opening}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, timeout=60, check=False, text=True
    )
    assert done.returncode == 8
    assert done.stderr.startswith("error: standard input: it is not open for reading\n")
