"""Kill anything at any moment, start it again, give the same command again: always equal in the end.

The issue's full form: ``MOONCAKE_CHAOS_ROUNDS=20 MOONCAKE_CHAOS_MIB=1024 pytest tests/e2e/test_chaos.py``; another
``MOONCAKE_CHAOS_SEED`` tells another story.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pstore.errors import AgentRunning
from tests.e2e.cluster import Agent, Cluster, Done, eventually, journalled, leftovers, make_file, same

MIB = 1 << 20
ROUNDS = int(os.environ.get("MOONCAKE_CHAOS_ROUNDS", "6"))
SIZE = int(os.environ.get("MOONCAKE_CHAOS_MIB", "64")) * MIB
SEED = int(os.environ.get("MOONCAKE_CHAOS_SEED", "20"))

VICTIMS = ("source", "getter", "command", "etcd")
RETRYABLE = {5, 6}
"""No live peer, no metadata server: what a user is told to try again."""

ROUND_SECONDS = 300 + SIZE // (20 * MIB)
"""A bound for one round, on a slow and busy machine."""


def checkpoint(root: Path) -> Path:
    """A directory of SIZE bytes in four shards, and some small files."""
    (root / "sub" / "empty").mkdir(parents=True)
    for number in range(4):
        make_file(root / f"model-{number}.safetensors", SIZE // 4, seed=number)
    for number in range(20):
        (root / "sub" / f"{number}.json").write_text("{}" * number)
    return root


def whole_or_absent(dest: Path, source: Path) -> bool:
    """Whether the copy is there; what is neither there nor absent fails the test."""
    if not os.path.lexists(dest):
        return False
    assert same(source, dest), "something half-made stands under the final name"
    return True


def kill_own_etcd(agent: Agent) -> None:
    """SIGKILL the etcd that an agent started for itself, and which it starts again by itself."""
    pid = agent.etcd_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: agent.etcd_pid != pid and agent.run("list").status == 0, "another etcd answers")


@pytest.mark.timeout(60 + ROUNDS * ROUND_SECONDS)
def test_with_an_etcd_of_its_own(alone: Cluster) -> None:
    etcd = alone.etcd()

    def lose_etcd() -> None:
        etcd.kill()
        etcd.start()

    source, getter = alone.agents("source", "getter")
    chaos(alone, source, getter, lose_etcd, random.Random(SEED), ROUNDS)


@pytest.mark.timeout(60 + ROUNDS * ROUND_SECONDS)
def test_with_the_etcd_of_an_agent(alone: Cluster) -> None:
    source = alone.agent("source")
    getter = alone.agent("getter", metadata=source.status()["metadata"])
    chaos(alone, source, getter, lambda: kill_own_etcd(source), random.Random(SEED + 1), (ROUNDS + 1) // 2)


def chaos(
    cluster: Cluster,
    source: Agent,
    getter: Agent,
    lose_etcd: Callable[[], None],
    chance: random.Random,
    rounds: int,
) -> None:
    path = checkpoint(cluster.path("checkpoint"))
    chunks = source.ok("register", path, "--name", "checkpoint", "--chunk-size", "1MiB")["chunks"]
    story: list[str] = []
    victims: list[str] = []
    for number in range(rounds):
        victims = victims or chance.sample(VICTIMS, len(VICTIMS))
        victim, transport = victims.pop(), chance.choice(["tcp", "tcp", "local"])
        moment, pause = chance.randrange(-chunks // 8, chunks), chance.uniform(0, 0.3)
        dest = cluster.path(f"copy-{number}")
        command = ["get", "checkpoint", str(dest), "--transport", transport]
        running = getter.begin(*command, "--json")
        if moment < 0:
            time.sleep(pause)  # early: while the command, or the get, begins
        while journalled(dest) < moment and not running.ended:
            time.sleep(0.001)
        had = journalled(dest)
        kill = {"source": source.kill, "getter": getter.kill, "etcd": lose_etcd, "command": running.process.kill}
        kill[victim]()
        there = whole_or_absent(dest, path)
        if victim in {"source", "getter"}:
            # The command that was just being given may have been quicker.
            started = {"source": source, "getter": getter}[victim].run("node", "start")
            assert started.status in {0, AgentRunning.exit_code}, started
        done = running.wait(ROUND_SECONDS)
        story.append(f"{number}: {transport}, {victim} killed at {had} of {chunks} chunks, {done.status}")
        assert done.status in {0, -signal.SIGKILL} | RETRYABLE, "\n".join([*story, str(done), getter.log()])
        assert whole_or_absent(dest, path) >= there, "\n".join(story)
        again = finish(getter, command, story)
        assert same(path, dest), "\n".join(story)
        assert again["bytes_pulled"] + again["bytes_reused"] == SIZE + sum(2 * n for n in range(20))
        assert leftovers(dest) == [], "\n".join(story)
        eventually(
            lambda: (h := source.holders("checkpoint")) and {n: r["state"] for n, r in h.items()} == BOTH,
            "both hold all of it",
        )
        getter.ok("unregister", "checkpoint")
        shutil.rmtree(dest)
    print("\n".join(story))


BOTH = {"source": "complete", "getter": "complete"}


def finish(getter: Agent, command: list[str], story: list[str]) -> dict[str, int]:
    """The same command again, until it succeeds; a failure must be one that the user is told to try again."""

    def attempt() -> Done | None:
        done = getter.run(*command, "--json", timeout=ROUND_SECONDS)
        story.append(f"   again: {done.status}")
        assert_retryable(done, story, getter)
        return done if done.status == 0 else None

    done = eventually(attempt, "the same command succeeds")
    assert done is not None
    answer: dict[str, int] = done.json
    return answer


def assert_retryable(done: Done, story: list[str], getter: Agent) -> None:
    if done.status != 0 and done.status not in RETRYABLE:
        pytest.fail("\n".join([*story, str(done), getter.log()]))
