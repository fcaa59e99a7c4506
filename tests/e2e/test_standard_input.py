"""What is registered from a pipe, by real agents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.cluster import COMMAND_TIMEOUT, Agent, Cluster, eventually, make_file, same

MIB = 1 << 20


def begin(agent: Agent, *arguments: object) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "mooncake_cli", "--home", str(agent.home), "--metadata", str(agent.metadata)]
    return subprocess.Popen(
        [*words, "register", "-", *map(str, arguments)],
        env=agent.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def register(agent: Agent, data: bytes, *arguments: object) -> tuple[int, bytes, str]:
    process = begin(agent, *arguments)
    out, errors = process.communicate(data, timeout=COMMAND_TIMEOUT)
    return process.returncode, out, errors.decode()


def kept(agent: Agent) -> list[Path]:
    return sorted((agent.home / "state" / "kept").glob("*")) + sorted((agent.home / "state" / "kept").glob(".*"))


def test_a_stream_is_kept_and_served(source: Agent, getter: Agent, shared: Cluster) -> None:
    path = make_file(shared.path("streamed"), 40 * MIB + 3, seed=100)
    status, out, errors = register(source, path.read_bytes(), "--name", "streams/a", "--chunk-size", "1MiB")
    assert (status, out) == (0, b""), errors
    assert errors.startswith("registered streams/a: 40.0 MiB, 1 file, 41 chunks of 1.0 MiB, in ")
    (file,) = [each for each in kept(source) if each.name.startswith("streams%2Fa-")]
    assert f"kept at {file}\n" in errors
    dest = shared.path("streamed-copy")
    getter.ok("get", "streams/a", dest, "--transport", "tcp")
    assert same(path, dest)
    assert source.ok("verify", "streams/a")["ok"]
    assert register(source, b"", "--name", "streams/empty", "-q") == (0, b"streams/empty\n", "")


def test_other_content_is_refused_and_not_kept(source: Agent, shared: Cluster) -> None:
    assert register(source, b"one", "--name", "streams/b")[0] == 0
    before = kept(source)
    status, _, errors = register(source, b"two", "--name", "streams/b")
    assert status == 7, errors
    assert kept(source) == before
    assert register(source, b"two", "--name", "streams/b", "--force")[0] == 0
    assert source.ok("info", "streams/b")["size"] == 3
    assert register(source, b"two", "--name", "streams/b")[0] == 0, "the same again is no other content"
    assert source.ok("verify", "streams/b")["ok"]


def test_what_makes_no_sense(source: Agent) -> None:
    for words in ([], ["--name", "a b"], ["x", "--name", "n/"], ["--name", "n", "--include", "x"]):
        status, _, errors = register(source, b"x", *words)
        assert status == 2, (words, errors)


def test_an_interrupted_stream_leaves_nothing(source: Agent) -> None:
    before = kept(source)
    for number in (signal.SIGINT, signal.SIGKILL):
        process = begin(source, "--name", "streams/cut")
        assert process.stdin is not None
        process.stdin.write(os.urandom(3 * MIB))
        process.stdin.flush()
        eventually(lambda: len(kept(source)) > len(before), "something is kept")
        time.sleep(0.5)
        process.send_signal(number)
        process.communicate(timeout=COMMAND_TIMEOUT)
        assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
        eventually(lambda: kept(source) == before, "nothing is left of it")
    assert source.fails(3, "info", "streams/cut")["type"] == "ObjectNotFound"
