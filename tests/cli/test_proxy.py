"""``mooncake proxy`` as a process, before real processes that serve as engines and are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import signals
from mooncake_cli.commands.proxy import _options
from mooncake_cli.framework import _spread
from p2pstore.errors import UsageError
from p2pstore.serving.admission import Admission
from p2pstore.serving.placement import Placement
from p2pstore.serving.proxy.fleet import Place
from tests.cli.conftest import Mooncake

SECONDS = 60
MODEL = "models/tiny"
KEY = "a-secret-of-the-tests"

ENGINE = """
import asyncio, json, signal, sys
from tests.p2pstore.serving.proxy.fake_engine import Engine

async def main():
    engine = await Engine(tokens=int(sys.argv[1]), pause=float(sys.argv[2])).start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, setattr, engine, "pause", 0.0)
    print(engine.address, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""
"""After SIGUSR1 it pauses no more."""


class Started:
    """A process that says in its first line where it listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.line = process.stdout.readline().strip()
        assert self.line, process.communicate(timeout=SECONDS)

    @property
    def url(self) -> str:
        return str(json.loads(self.line)["url"])

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def stream(self, begun: Callable[[], object] = lambda: None, **body: Any) -> list[str]:
        """The data of its events; ``begun`` is called when the first has come."""
        lines: list[str] = []
        asked = json.dumps({"model": MODEL, "prompt": "x", "stream": True, **body}).encode()
        request = urllib.request.Request(self.url + "/v1/completions", asked, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    lines.append(line.decode()[6:].strip())
                    if len(lines) == 1:
                        begun()
        return lines

    def until(self, true: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not true(self.ask("/status")[1]):
            assert time.monotonic() < deadline, self.ask("/status")
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, errors


Start = Callable[..., Started]


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def start(*words: str, **more: str) -> Started:
        process = subprocess.Popen(
            [sys.executable, *words],
            env={**environment, **more},
            cwd=tmp_path / "cwd",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return Started(process)

    yield start
    for process in running:
        process.kill()
        process.wait(SECONDS)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def engine(run: Start) -> Start:
    return lambda tokens=3, pause=0.0: run("-c", ENGINE, str(tokens), str(pause))


@pytest.fixture
def proxy(run: Start) -> Start:
    def start(prefill: list[Started], decode: list[Started], *options: str, **more: str) -> Started:
        instances = ["--prefill", *(one.line for one in prefill), "--decode", *(one.line for one in decode)]
        started = run(
            "-m", "mooncake_cli", "proxy", "--json", "--model", MODEL, "--port", "0", *instances, *options, **more
        )
        started.until(
            lambda said: (said["prefill_node_count"], said["decode_node_count"]) == (len(prefill), len(decode))
        )
        return started

    return start


@pytest.mark.parametrize("number", signals.ending())
def test_it_serves_until_it_is_told_to_end(engine: Start, proxy: Start, number: int) -> None:
    started = proxy([engine()], [engine()], "--scheduling", "round_robin")
    assert started.url.startswith("http://127.0.0.1:")
    status, said = started.ask("/v1/completions", {"prompt": "x", "max_tokens": 2})
    assert (status, said["usage"]["completion_tokens"]) == (200, 2)
    assert started.stream()[-1] == "[DONE]"
    status, errors = started.end(number)
    assert status == 0
    assert "Traceback" not in errors


def test_killed_instances_are_survived(engine: Start, proxy: Start) -> None:
    """kill -9 of a decode instance in mid-stream, and of a prefill instance: later requests do not notice."""
    prefills, decodes = [engine(), engine()], [engine(200, 1.0), engine(200, 1.0)]
    started = proxy(prefills, decodes)
    results: list[list[str]] = []
    begun = threading.Semaphore(0)
    threads = [
        threading.Thread(target=lambda: results.append(started.stream(begun.release, max_tokens=200))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert begun.acquire(timeout=SECONDS)
    started.until(lambda said: sum(one["running"] for one in said["instances"] if one["type"] == "decode") == 6)
    decodes[0].process.kill()
    decodes[1].process.send_signal(signal.SIGUSR1)
    for thread in threads:
        thread.join(SECONDS)
    whole = [lines for lines in results if lines[-1] == "[DONE]"]
    broken = [lines for lines in results if lines[-1] != "[DONE]"]
    assert len(whole) + len(broken) == 6
    assert all(len(lines) == 201 for lines in whole)
    assert len(broken) == 3
    for lines in broken:
        error = json.loads(lines[-1])["error"]
        assert "decode" in error["message"] or "gone" in error["message"]
        assert all("error" not in json.loads(line) for line in lines[:-1])
    prefills[1].process.kill()
    for _ in range(6):
        assert started.ask("/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200
    started.until(lambda said: (said["prefill_node_count"], said["decode_node_count"]) == (1, 1))
    status, errors = started.end()
    assert status == 0
    assert "takes no requests" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_an_engine_that_is_stopped_is_survived(engine: Start, proxy: Start) -> None:
    """SIGSTOP: its kernel still accepts connections."""
    prefill, stopped, good = engine(), engine(), engine()
    started = proxy([prefill], [stopped, good], "--idle-timeout", "10")
    stopped.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            assert started.ask("/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200
    finally:
        stopped.process.send_signal(signal.SIGCONT)


def test_the_key_of_those_who_add(engine: Start, proxy: Start) -> None:
    started = proxy([engine()], [engine()], ADMIN_API_KEY=KEY)
    other = engine()
    body = {"type": "decode", "instance": other.line}
    assert started.ask("/instances/add", body)[0] == 403
    assert started.ask("/instances/add", body, **{"X-API-Key": KEY})[0] == 200
    assert started.ask("/instances/remove", body, **{"X-API-Key": KEY})[0] == 200
    started.until(lambda said: len(said["instances"]) == 2)
    assert KEY not in started.end()[1]


def test_keys_that_were_read_from_a_file(engine: Start, proxy: Start) -> None:
    """With the end of its line, no header could carry them."""
    started = proxy([engine()], [engine()], ADMIN_API_KEY=KEY + "\n", OPENAI_API_KEY=KEY + "\n")
    body = {"type": "decode", "instance": engine().line}
    assert started.ask("/instances/add", body, **{"X-API-Key": KEY})[0] == 200
    assert "Traceback" not in started.end()[1]


@pytest.mark.parametrize("variable", ["ADMIN_API_KEY", "OPENAI_API_KEY"])
def test_keys_that_no_header_carries(mooncake: Mooncake, variable: str) -> None:
    done = mooncake("proxy", "--model", MODEL, "-p", "h:1", "-d", "h:2", **{variable: f"{KEY}\nand more"})
    assert done.returncode == 2
    assert f"{variable} has a line break" in done.stderr
    assert KEY not in done.stderr


def test_what_people_read(environment: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mooncake_cli", "proxy", "-m", MODEL, "--port", "0", "-p", "127.0.0.1:1", "-d", "127.0.0.1:1"],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert process.stderr is not None
        lines = process.stderr.readline() + process.stderr.readline()
    finally:
        process.terminate()
        _, _ = process.communicate(timeout=SECONDS)
    assert line.startswith("http://127.0.0.1:")
    for kind in ("prefill", "decode"):  # whichever is asked first
        assert f"WARNING {kind}/127.0.0.1:1: cannot connect: Connection refused" in lines
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--host", "0.0.0.0"), 7, "refusing to serve on 0.0.0.0:8000"),
        (("--scheduling", "best"), 2, "--scheduling: 'best' is none of random, round-robin"),
        (("--admission", "x"), 2, "--admission: 'x' is none of none, late"),
        (("--slo-ttft", "0"), 2, "--slo-ttft: 0 is no number of seconds above 0"),
        (("--slo-tbt", "nan"), 2, "'--slo-tbt': nan is"),
        (("-p", "nowhere"), 2, "'nowhere' is no HOST:PORT"),
        (("-p", "h:1", "h:1"), 2, "named twice"),
        (("-p", "h:1", "99999999"), 2, "no port of a bootstrap server"),
        (("-d", "h:1", "8998"), 2, "decode"),
        (("-p", "h:1", "--kv-events", "h:2=tcp://h:5557"), 2, "named with --prefill"),
        (("-p", "h:1", "--kv-events", "h:1=h:5557"), 2, "no endpoint"),
        (("-p", "h:1", "--kv-events", "h:1=tcp://h"), 2, "no HOST:PORT"),
        (("-p", "h:1", "--pool", "x:y:z"), 2, "x:y:z"),
        (("--max-requests", "0"), 2, "--max-requests"),
        (("--idle-timeout", "0"), 2, "--idle-timeout"),
        (("--connect-timeout", "inf"), 2, "--connect-timeout"),
        (("--port", "70000"), 2, "70000"),
    ],
)
def test_slips(mooncake: Mooncake, options: tuple[str, ...], status: int, said: str) -> None:
    done = mooncake("proxy", "--model", MODEL, *options, ADMIN_API_KEY=KEY)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_without_instances_and_without_a_key_there_would_never_be_any(mooncake: Mooncake) -> None:
    done = mooncake("proxy", "--model", MODEL, "-p", "h:1")
    assert done.returncode == 2
    assert "set ADMIN_API_KEY" in done.stderr


def test_a_port_that_somebody_has(engine: Start, proxy: Start, mooncake: Mooncake) -> None:
    port = proxy([engine()], [engine()]).url.rpartition(":")[2]
    done = mooncake("proxy", "--model", MODEL, "--port", port, ADMIN_API_KEY=KEY)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_words_behind_an_option() -> None:
    several = ("--prefill", "-p")
    assert _spread(["--prefill", "a", "b", "--port", "1", "x"], several) == [
        "--prefill",
        "a",
        "--prefill",
        "b",
        "--port",
        "1",
        "x",
    ]
    assert _spread(["-p", "a", "--prefill=b", "c"], several) == ["-p", "a", "--prefill=b", "--prefill", "c"]
    assert _spread(["--model", "m", "n"], several) == ["--model", "m", "n"]
    assert _spread(["-p"], several) == ["-p"]


def test_options() -> None:
    named = ["a:1", "8998", "b:2"], ["c:3"], ["a:1=tcp://a:5557,tcp://a:5558"]
    options = _options("m", named, ("kvcache_centric", "early"), (1.0, 0.1), p2p=False, given={"waiting": None})
    first = Place("a", 1, bootstrap=8998, events="tcp://a:5557", replay="tcp://a:5558")
    assert options.prefill == (first, Place("b", 2))
    assert (options.decode, options.p2p) == ((Place("c", 3),), True)
    assert (options.policy.placement, options.policy.admission) == (Placement.KVCACHE_CENTRIC, Admission.EARLY)
    with pytest.raises(UsageError):
        _options("m", (["a"], [], []), ("random", "none"), (1.0, 0.1), p2p=False, given={})
