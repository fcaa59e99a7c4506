"""The yardstick of one to many runs, small and on loopback, and its table says what was measured."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from p2pstore.bench.broadcast_outcome import Broadcast, Received

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "broadcast_peers.py"


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("broadcast_peers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for their module
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(SCRIPT.parent)  # as for a script
            spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


@pytest.mark.parametrize("name", ["ours", "libtorrent", "curl"])
def test_each_contender_brings_the_object_to_all(peers: ModuleType, name: str) -> None:
    if why_not := peers.missing(name):
        pytest.skip(why_not)
    command = [sys.executable, str(SCRIPT), "--receivers", "2", "--size", "3MiB", "--rounds", "1", "--only", name]
    done = subprocess.run(
        [*command, "--json"], check=False, capture_output=True, text=True, timeout=300, cwd=SCRIPT.parents[1]
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)["rows"][name]
    assert row["last"] > 0
    assert 1 <= row["seed_ratio"] <= 2.1, "the whole object left the seed, to two at most"
    assert row["seconds_per_gb"] >= 0


def test_a_copy_that_differs_is_no_result(peers: ModuleType, tmp_path: Path) -> None:
    field = peers.Field(peers.Task(receivers=1, size=100, rate=0.0), peers.Loopback(), tmp_path)
    field.copy(1).write_bytes(field.source.read_bytes())
    field.compare()
    field.copy(1).write_bytes(b"x" * 100)
    with pytest.raises(SystemExit, match="receiver 1 differs"):
        field.compare()


def test_a_receiver_that_fails_is_no_result(peers: ModuleType) -> None:
    def receive(number: int) -> None:
        if number == 2:
            raise SystemExit("this one fails")

    task = peers.Task(receivers=2, size=1000, rate=0.0)
    with pytest.raises(SystemExit, match="1 of 2 receivers have it\nthis one fails"):
        peers.timed(task, receive, lambda: 0.0)


def test_a_copy_of_ours_that_differs_is_named(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    task = peers.Task(receivers=2, size=1000, rate=0.0)
    receivers = [Received("node1", equal=True), Received("node2")]
    monkeypatch.setattr(peers, "broadcast", lambda plan, _: Broadcast(plan, receivers=receivers))
    with pytest.raises(SystemExit, match=r"^node2: differs$"):
        peers.ours(task)


def test_one_that_says_nothing_is_not_waited_for(peers: ModuleType, tmp_path: Path) -> None:
    field = peers.Field(peers.Task(receivers=1, size=100, rate=0.0), peers.Loopback(), tmp_path)
    child = peers.Child(field, 0, "server", "127.0.0.1", str(tmp_path))
    try:
        assert int(child.hear()) > 0
        with pytest.raises(SystemExit, match="status -9"):
            child.hear(patience=0.1)
    finally:
        child.end()


def test_times_are_over_those_of_a_copy_to_one(peers: ModuleType) -> None:
    task = peers.Task(receivers=8, size=100, rate=10.0)
    runs = [peers.Figures(last, 1.0, 4.0, busy) for last, busy in ((11.0, 0.5), (20.0, None), (12.0, 0.7))]
    rows = peers.summed_up(task, {"ours": runs})
    assert rows["ours"] == {
        "last": 1.2,
        "lowest": 1.1,
        "highest": 2.0,
        "seed_ratio": 1.0,
        "seconds_per_gb": 4.0,
        "busy": 0.6,
    }
    text = peers.table(task, rows)
    assert "last receiver over S/B" in text
    assert "| ours | 1.20 | 1.10 to 2.00 | 1.00 | 4.0 | 60% |" in text


def test_who_does_not_exist_is_refused() -> None:
    command = [sys.executable, str(SCRIPT), "--only", "ours,carrier-pigeon"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "carrier-pigeon" in done.stderr
