"""One real engine, watched from outside: its KV events, and a trace that is played on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from p2pstore.serving.events import Block
from p2pstore.serving.knowledge.engine_blocks import EngineBlocks
from p2pstore.serving.knowledge.feed import Feed
from p2pstore.serving.knowledge.vllm_events import EngineEvent
from tests.serving.conftest import ROOT, Start, words
from tests.serving.engines import BLOCK, Engine

FOREVER = 120

pytestmark = pytest.mark.timeout(900)


def key(before: Block | None, tokens: Sequence[int]) -> Block:
    return (before, tuple(tokens))


def keys(prompt: Sequence[int], size: int) -> set[Block]:
    found: list[Block] = []
    for at in range(0, len(prompt) // size * size, size):
        found.append(key(found[-1] if found else None, prompt[at : at + size]))
    return set(found)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Where the engine publishes its events, and where it replays them: sockets of this host's."""
    directory = tmp_path_factory.mktemp("events")
    return f"ipc://{directory}/events", f"ipc://{directory}/replay"


@pytest.fixture(scope="module")
def engine(start: Start, places: tuple[str, str]) -> Engine:
    config = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": places[0], "replay_endpoint": places[1]}
    return start("observed", arguments=["--kv-events-config", json.dumps(config)]).wait()


async def test_what_it_computes_is_known_also_to_who_comes_later(engine: Engine, places: tuple[str, str]) -> None:
    first, second = words("first"), words("second")
    engine.ask(first, 1)
    blocks = [EngineBlocks("observed", BLOCK, key), EngineBlocks("observed", 2 * BLOCK, key)]

    def told(events: list[EngineEvent]) -> None:
        for event in events:
            for each in blocks:
                each.handle(event)

    feed = Feed(places[0], told, replay=places[1])
    task = asyncio.create_task(feed.run())
    await asyncio.sleep(1.0)  # to be connected; what is said before that is in the replay anyway
    await asyncio.to_thread(engine.ask, second, 1)
    wanted = [keys(first, size) | keys(second, size) for size in (BLOCK, 2 * BLOCK)]
    assert all(wanted)
    deadline = asyncio.get_running_loop().time() + FOREVER
    while not all(each.held >= want for each, want in zip(blocks, wanted, strict=True)):
        assert not task.done(), task
        assert asyncio.get_running_loop().time() < deadline, (feed.missed, feed.bad, blocks[0].unknown)
        await asyncio.sleep(0.1)
    assert (feed.missed, feed.bad, blocks[0].unknown) == (0, 0, 0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_a_trace_is_played_on_it(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 500 * number, "input_length": 4096, "output_length": 64, "hash_ids": [0, 1, 2, 10 + number]}
        for number in range(4)
    ]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "mooncake_cli", "bench", "serve", "--trace", str(trace), "--json"]
    live = ["--live", f"http://{engine.address}", "--scale", "8", "--ttft", "100", "--tbt", "100"]
    done = subprocess.run([*command, *live], capture_output=True, text=True, timeout=FOREVER * 4, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["requests"], row["good"], row["failed"], row["errors"]) == (4, 4, 0, {})
    assert row["output_tokens"] == 4 * 8
    assert row["hit_rate"] > 0.3
