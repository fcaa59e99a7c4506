"""Kill the master, writers and owners of memory of a pooled store in the middle of a load; what was put stays, and is right.

The full form: ``MOONCAKE_STORE_CHAOS_ROUNDS=50 pytest tests/e2e/test_store_chaos.py``; another
``MOONCAKE_STORE_CHAOS_SEED`` tells another story.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pstore.kv.master.admin_client import AdminClient
from tests.interop.wheels import Wheel, wheel
from tests.p2pstore.kv.client.masters import AMaster
from tests.ports import reserved_port

ROUNDS = int(os.environ.get("MOONCAKE_STORE_CHAOS_ROUNDS", "5"))
SEED = int(os.environ.get("MOONCAKE_STORE_CHAOS_SEED", "13"))

LOAD = Path(__file__).with_name("store_load.py")
OURS = Wheel("ours", {"STORE_MODULE": "p2pstore.kv.client.compat"}, Path())
SEGMENT = 128 << 20
ANSWER_SECONDS = 120
"""For a worker to answer; it is killed then, and the test fails."""

CALL_SECONDS = 90.0
"""For the longest call of a client; upstream's wait some 4.5 s for a master that is gone, and more on a busy machine."""

ROUND_SECONDS = 180
"""A bound for one round, on a slow and busy machine."""


class KeepingMaster(AMaster):
    """``mooncake store master`` with its state in a directory."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory / "master.log")
        self._options = ["--state", str(directory / "state"), *options]
        self._admin = f"127.0.0.1:{reserved_port()}"
        self.start()

    def command(self) -> tuple[list[str], dict[str, str]]:
        places = ["--listen", self.address, "--metrics", self._admin]
        return [sys.executable, "-m", "mooncake_cli", "store", "master", *places, *self._options], {}

    def has_room_at(self, segment: str) -> bool:
        """Whether values may be put into a client's memory."""
        segments = AdminClient(self._admin).status()["segments"]
        return any(each["segment_name"] == segment and each["status"] != "ABSENT" for each in segments)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


class Worker:
    """A client under load, in a process of its own."""

    def __init__(self, kind: str, me: str, master: str, *, gives: bool, replicas: int, others: list[str]) -> None:
        installed = OURS if kind == "ours" else wheel("newest")
        given = {
            "name": f"127.0.0.1:{reserved_port()}",
            "segment": SEGMENT if gives else 0,
            "master": master,
            "me": me,
            "others": others,
            "replicas": replicas,
        }
        self.me = me
        self.segment = given["name"]
        variables = {"STORE_MODULE": "mooncake.store", **installed.environment, "STORE_LOAD": json.dumps(given)}
        self._process = Wheel(kind, variables, Path()).run(LOAD)
        assert self._answer() == 0

    def __call__(self, do: str, *args: object) -> Any:
        self.ask(do, *args)
        return self._answer()

    def ask(self, do: str, *args: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([do, *args]) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        bound = threading.Timer(ANSWER_SECONDS, self._process.kill)
        bound.start()
        try:
            for line in self._process.stdout:
                if line.startswith("answer "):
                    return json.loads(line.removeprefix("answer "))
        finally:
            bound.cancel()
        return pytest.fail(f"{self.me} ended with status {self._process.wait(10)}")

    def goes_on(self) -> dict[str, Any]:
        """What it did, once it has put and got something since now."""
        before = self("told")["good"]
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            told: dict[str, Any] = self("told")
            assert told["wrong"] == [], self.me
            if all(told["good"][what] > before[what] for what in ("put", "get")):
                return told
            assert time.monotonic() < deadline, f"{self.me} is stuck: {told}"
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)

    def close(self) -> None:
        try:
            self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()


class Story:
    """A master, workers, and what became of them."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.master = KeepingMaster(directory, *options)
        self.workers: dict[str, Worker] = {}
        self._number = 0

    def joins(self, kind: str, *, gives: bool, replicas: int = 1) -> str:
        """A new worker, whose name nobody had before; it is under load from now on."""
        self._number += 1
        me = f"{kind}{self._number}"
        others = [*self.workers, me]
        self.workers[me] = Worker(kind, me, self.master.address, gives=gives, replicas=replicas, others=others)
        self.workers[me]("go")
        return me

    def check(self) -> str:
        """All that was put is there, nothing that was removed is, no byte was wrong, no call took for ever."""
        for worker in self.workers.values():
            worker.ask("check")
        told = {me: worker._answer() for me, worker in self.workers.items()}
        for me, each in told.items():
            found = (each["wrong"], each["missing"], each["back"])
            assert found == ([], [], []), f"{me}: wrong, missing, back: {found}\n{self.master.log()}"
            assert each["slowest"] < CALL_SECONDS, (me, each)
        for worker in self.workers.values():
            worker("go")
        return ", ".join(f"{me} {each['kept']} kept, {each['slowest']:.1f} s" for me, each in told.items())

    def forget(self) -> None:
        """What was put up to now need not be there any more."""
        for worker in self.workers.values():
            worker("forget")

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self.master.kill()


Begin = Callable[..., Story]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    made: list[Story] = []

    def one(*options: str) -> Story:
        made.append(Story(tmp_path, *options))
        return made[-1]

    yield one
    for story in made:
        story.close()


@pytest.mark.slow
@pytest.mark.timeout(120 + ROUNDS * ROUND_SECONDS)
def test_a_master_that_is_killed_loses_no_value_whose_put_had_ended(begin: Begin) -> None:
    chance = random.Random(SEED)
    story = begin("--lease", "2s")
    for kind, gives in [("ours", True), ("wheel", True), ("ours", False), ("wheel", False)]:
        story.joins(kind, gives=gives)
    for number in range(ROUNDS):
        for worker in story.workers.values():
            worker.goes_on()
        time.sleep(chance.uniform(0, 1))
        story.master.kill()
        down = chance.choice([0.0, chance.uniform(0, 3)])
        time.sleep(down)
        story.master.start()
        if chance.random() < 0.3:  # again, while clients come back
            time.sleep(chance.uniform(0, 1.5))
            story.master.kill()
            story.master.start()
        for worker in story.workers.values():
            worker.goes_on()
        print(f"{number}: down {down:.1f} s; {story.check()}")


@pytest.mark.slow
@pytest.mark.timeout(120 + ROUNDS * ROUND_SECONDS)
def test_owners_and_writers_that_are_killed_take_nothing_along_that_others_hold(begin: Begin) -> None:
    """Each value has two replicas with three owners, of whom one dies in a round; what it was writing is written anew."""
    chance = random.Random(SEED + 1)
    story = begin("--lease", "1s", "--client-ttl", "4s")
    readers = [story.joins(kind, gives=False, replicas=2) for kind in ("ours", "wheel")]
    owners = [story.joins(kind, gives=True, replicas=2) for kind in ("ours", "wheel", "ours")]
    story.forget()  # what was put while one owner was there alone
    for number in range((ROUNDS + 1) // 2):
        for worker in story.workers.values():
            worker.goes_on()
        victim = chance.choice(owners)
        with_master = chance.random() < 0.3
        time.sleep(chance.uniform(0, 1))
        if with_master:
            story.master.kill()
        dead = story.workers.pop(victim)
        dead.kill()
        if with_master:
            story.master.start()
        for worker in story.workers.values():
            worker.goes_on()
        said = story.check()
        story.joins(victim.rstrip("0123456789"), gives=True, replicas=2)
        deadline = time.monotonic() + ANSWER_SECONDS
        while story.master.has_room_at(dead.segment):
            assert time.monotonic() < deadline, story.master.log()
            time.sleep(0.1)
        story.forget()  # what has one replica left, and would be lost with the next
        owners = [me for me in story.workers if me not in readers]
        print(f"{number}: {victim} killed{' with the master' * with_master}; {said}")


@pytest.mark.parametrize("kind", ["ours", "wheel"])
def test_what_a_killed_writer_left_unfinished_another_puts(begin: Begin, kind: str) -> None:
    story = begin("--client-ttl", "15s")  # on a busy machine who lives stands still for some
    owner = story.joins("ours", gives=True)
    writer = story.joins(kind, gives=False)
    story.workers[writer].goes_on()
    count = sum(story.workers[writer]("told")["good"].values())
    story.workers.pop(writer).kill()
    survivor = story.workers[owner]
    # It was somewhere among the names that it takes in turn.
    for number in range(6 * count + 20):
        name = f"{writer}-{number}"
        if survivor("get", name) == "right":
            continue
        assert survivor("put", name) == 0
        assert survivor("get", name) == "right"
    story.check()
