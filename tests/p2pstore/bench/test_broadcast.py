"""Real agents: everybody gets the same bytes, whoever dies, lies or comes back; and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2pstore.bench.broadcast import broadcast
from p2pstore.bench.broadcast_outcome import Broadcast, BroadcastPlan
from p2pstore.errors import UsageError

MIB = 1 << 20

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def can_limit() -> str:
    """Why namespaces with limited cards cannot be made here; empty when they can."""
    from p2pstore.bench.namespaces import Namespaces

    try:
        with Namespaces([1e6]):
            return ""
    except UsageError as error:
        return str(error)


def run(tmp_path: Path, **plan: object) -> Broadcast:
    result = broadcast(BroadcastPlan(directory=tmp_path, **plan), lambda _: None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [], "the copies are removed"
    return result


def check(result: Broadcast, *, restarted: bool = False) -> None:
    """Everybody has it, and what each says that it got adds up."""
    for received in result.receivers:
        assert received.error == "", received
        assert received.equal, received
        if not restarted:
            assert sum(received.peers.values()) == result.plan.size
    assert result.ok


def test_three_receivers_on_loopback(tmp_path: Path) -> None:
    result = run(tmp_path, receivers=3, size=6 * MIB + 5)
    check(result)
    assert result.chunks == 7
    assert result.seed_bytes == sum(r.peers.get("seed", 0) for r in result.receivers)
    assert result.nearness is None
    document = result.to_json()
    assert [node["node"] for node in document["nodes"]] == ["node1", "node2", "node3"]
    assert all(node["progress"][-1][1] == 6 * MIB + 5 for node in document["nodes"])


@NEEDS_ROOT
def test_a_receiver_that_lies_is_named_by_those_who_asked_it(tmp_path: Path) -> None:
    if why_not := can_limit():
        pytest.skip(why_not)
    liar = {1: "tests.p2pstore.bench.lying_agent"}
    result = run(tmp_path, receivers=3, size=24 * MIB, rate=12e6, modules=liar)
    check(result)
    honest = result.receivers[1:]
    assert not any(received.peers.get("node1") for received in honest), "wrong bytes do not count"
    assert any("node1" in note for received in honest for note in received.notes)


@NEEDS_ROOT
def test_namespaces_limit_rates_and_are_removed(tmp_path: Path) -> None:
    if why_not := can_limit():
        pytest.skip(why_not)
    result = run(tmp_path, receivers=2, size=4 * MIB, rate=10e6, slow={2: 4e6})
    check(result)
    fast, slow = result.receivers
    assert fast.seconds > 4 * MIB / 10e6 * 0.9
    assert slow.seconds > 4 * MIB / 4e6 * 0.9
    assert result.nearness is not None
    assert result.nearness.bound == pytest.approx(4 * MIB / 4e6), "the slow one's card"
    assert 0 < result.nearness.percent < 115, "what a bucket holds passes at once"
    assert result.busy is not None
    assert 0 < result.busy <= 1
    assert result.processor_seconds > 0
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    assert f"mooncake-{os.getpid()}-" not in listed


@NEEDS_ROOT
@pytest.mark.slow
def test_the_seed_may_die_and_a_receiver_come_back(tmp_path: Path) -> None:
    if why_not := can_limit():
        pytest.skip(why_not)
    result = run(tmp_path, receivers=3, size=32 * MIB, rate=10e6, kill_seed_after=2.5, restart=2.0)
    check(result, restarted=True)
    assert result.receivers[0].restarts > 0


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("broadcast --receivers 2 --size 64MiB --rate 8mbit --directory", "registered"),
        ("simulate --receivers 2 --size 64MiB --calibrate --home", "measuring"),
    ],
)
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, words: str, said: str) -> None:
    if why_not := can_limit():
        pytest.skip(why_not)
    command = [sys.executable, "-m", "mooncake_cli", "bench", *words.split(), str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if said in line:
            break
    time.sleep(0.5)
    child.terminate()
    _, err = child.communicate(timeout=120)
    assert child.returncode == 143, err
    assert list(tmp_path.iterdir()) == []
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    assert f"mooncake-{child.pid}-" not in listed


@pytest.mark.parametrize(
    "wrong",
    [
        {"receivers": 0},
        {"receivers": 2, "size": 0},
        {"receivers": 2, "slow": {1: 5.0}},
        {"receivers": 2, "rate": 1e6, "slow": {3: 5.0}},
        {"receivers": 2, "restart": 1.0, "restarted": 0},
    ],
)
def test_plans_that_cannot_be_carried_out_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        run(tmp_path, **wrong)
