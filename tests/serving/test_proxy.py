"""Two prefill and two decode servers behind ``mooncake proxy``: one of each is killed in mid-stream, and then the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ports import reserved_port
from tests.serving.conftest import ROOT, CommandMaster, Start, words
from tests.serving.engines import ANSWER_SECONDS, Engine, ask
from tests.serving.pairs import MOST, once_stored
from tests.serving.test_vllm import ours

pytestmark = [pytest.mark.timeout(1700), pytest.mark.slow]

START_SECONDS = 60
STREAMS = 6
TOKENS = 200
AFTER = 4
LONG = 120.0


class Cluster(NamedTuple):
    """A proxy's address, and the engines behind it."""

    address: str
    prefill: list[Engine]
    decode: list[Engine]


class Stream(threading.Thread):
    """One streamed completion: its text so far, and how it ended."""

    def __init__(self, address: str, prompt: list[int]) -> None:
        super().__init__(daemon=True)
        self.prompt = prompt
        self.text = ""
        self.errors: list[str] = []
        self.whole = False
        """Whether the end was said."""
        self.failed: BaseException | None = None
        self.begun = threading.Event()
        body = {
            "model": "tiny", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True,
        }  # fmt: skip
        self._request = urllib.request.Request(
            f"http://{address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        self.start()

    def run(self) -> None:
        try:
            with urllib.request.urlopen(self._request, timeout=ANSWER_SECONDS) as answer:
                for line in answer:
                    self._take(line.decode().strip())
        except BaseException as error:
            self.failed = error
        self.begun.set()

    def _take(self, line: str) -> None:
        if not line.startswith("data: "):
            return
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            self.whole = True
            return
        event = json.loads(data)
        if "error" in event:
            self.errors.append(str(event["error"]))
            return
        for choice in event.get("choices", []):
            self.text += choice["text"]
            self.begun.set()


@pytest.fixture(scope="module")
def cluster(start: Start, mooncake_json: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    prefill = [start(f"prefill{n}", transfer=ours("kv_producer"), variables=mooncake_json) for n in range(2)]
    decode = [start(f"decode{n}", transfer=ours("kv_consumer"), variables=mooncake_json) for n in range(2)]
    for each in (*prefill, *decode):
        each.wait()
    directory: Path = tmp_path_factory.mktemp("proxy")
    port = reserved_port()
    address = f"127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mooncake_cli", "proxy", "--model", "tiny", "--port", str(port),
        "--prefill", *(each.address for each in prefill), "--decode", *(each.address for each in decode),
    ]  # fmt: skip
    log = directory / "proxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with suppress(OSError), urllib.request.urlopen(f"http://{address}/health", timeout=5):
                break
            time.sleep(0.1)
        yield Cluster(address, prefill, decode)
    finally:
        process.terminate()
        process.wait(60)


def test_requests_go_on_when_one_of_each_is_killed_in_mid_stream_and_then_the_store(
    cluster: Cluster, master: CommandMaster
) -> None:
    whole = ask(cluster.address, words("first"))
    assert (whole.text, whole.finish) == (cluster.prefill[0].ask(words("first")).text, "length")
    turn = iter(range(1000))
    taken = once_stored(lambda: ask(cluster.address, words(f"turn {next(turn)}")))
    assert taken.cached >= MOST, "the decode servers take what the others computed"
    streams = [Stream(cluster.address, words(f"stream {n}", 700)) for n in range(STREAMS)]
    for each in streams:
        assert each.begun.wait(LONG)
    cluster.prefill[0].kill()
    cluster.decode[0].kill()
    # Some that have no token yet: the dead ones are asked for them, too.
    later = [Stream(cluster.address, words(f"later {n}", 700)) for n in range(STREAMS)]
    for each in (*streams, *later):
        each.join(ANSWER_SECONDS)
        assert not each.is_alive()
        assert each.failed is None
    for each in streams:
        assert each.whole != bool(each.errors), "it ends well, or says why it does not"
    for each in later:
        assert (each.whole, each.errors) == (True, [])
    for each in (*streams, *later):
        if each.whole:
            assert each.text == cluster.decode[1].ask(each.prompt, TOKENS).text
    assert any(each.whole for each in streams), "those of the other decode server are none of its business"
    those_that_follow_are_right(cluster, "after")
    during = [Stream(cluster.address, words(f"during {n}", 700)) for n in range(2)]
    master.kill()
    those_that_follow_are_right(cluster, "without a store")
    for each in during:
        each.join(ANSWER_SECONDS)
        assert (each.whole, each.errors, each.failed) == (True, [], None)
    master.start()
    taken = once_stored(lambda: ask(cluster.address, words(f"turn {next(turn)}")))
    assert taken.cached >= MOST, "the store is back, and so is what it is for"
    those_that_follow_are_right(cluster, "with a store again")


def those_that_follow_are_right(cluster: Cluster, name: str) -> None:
    for number in range(AFTER):
        prompt = words(f"{name} {number}", 300)
        found = ask(cluster.address, prompt)
        assert (found.text, found.finish) == (cluster.decode[1].ask(prompt).text, "length")
