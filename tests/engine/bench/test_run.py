from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from engine.bench import Case, Engine, Operation, Plan, run
from engine.bench.process import Process, error_from_json, error_to_json
from engine.bench.targets import Target, find
from engine.bench.wheel import version
from engine.engine import P2PHANDSHAKE, TransferEngine
from engine.errors import BenchFailed, RangeRefused, Refused, UsageError

CASE = Case(Operation.READ, 65536, 2, 2)
QUICK = Plan(cases=[CASE], duration=0.2, warm_up=0.05, rounds=2, verify=True)


def test_ours_against_the_socket_loop() -> None:
    write = replace(CASE, operation=Operation.WRITE, batch_size=1)
    rows = list(run(replace(QUICK, cases=[CASE, write])))
    assert [row.case for row in rows] == [CASE, write]
    for row in rows:
        assert row.engine is Engine.OURS
        assert len(row.rounds) == len(row.socket) == 2
        document = row.to_json()
        assert document["gbps"] > 0
        assert document["socket_gbps"] > 0
        assert document["percent_of_socket"] == row.ratio * 100 > 0
        assert 0 < document["p99_us"] <= document["p999_us"]
        assert document["bytes"] == document["batches"] * row.case.batch_bytes
        assert document["seconds"] >= 0.2
        assert document["cpu_seconds_per_gb"] > 0
        assert document["socket_cpu_seconds_per_gb"] > 0


def mooncake_loads() -> str:
    """Why upstream's engine does not load here; empty where it does."""
    command = [sys.executable, "-c", "import mooncake.engine"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return (done.stderr.strip().splitlines() or ["it does not load"])[-1] if done.returncode else ""


def test_both_engines_side_by_side() -> None:
    if why := mooncake_loads():
        pytest.skip(f"NOT MEASURED WITH UPSTREAM'S ENGINE: {why}")
    mixed = replace(CASE, operation=Operation.MIXED)
    rows = list(run(replace(QUICK, cases=[mixed], engines=(Engine.OURS, Engine.MOONCAKE))))
    assert [row.engine for row in rows] == [Engine.OURS, Engine.MOONCAKE]
    assert rows[0].socket == rows[1].socket
    assert all(row.bytes > 0 for row in rows)
    assert version()


def test_ctrl_c_while_a_process_is_asked_leaves_nothing_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    start, timers = threading.Timer.start, list[threading.Timer]()

    def interrupted(timer: threading.Timer) -> None:
        start(timer)
        timers.append(timer)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Timer, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Process("target", "ours", length=4096)
    (timer,) = timers
    timer.join(30)
    assert not timer.is_alive(), "the interpreter waits for it"


def test_a_target_elsewhere_that_is_a_bench() -> None:
    target = Target(CASE.footprint)
    try:
        found = find(target.address.segment, P2PHANDSHAKE)
        assert found == target.address
        (row,) = run(replace(QUICK, target=target.address.segment))
        assert row.gbps > 0
        assert row.ratio is not None
        with pytest.raises(UsageError, match=f"need {2 * CASE.footprint} bytes"):
            list(run(replace(QUICK, cases=[replace(CASE, threads=4)], target=target.address.segment)))
    finally:
        target.close()


def test_a_segment_that_is_no_bench_is_not_written_to() -> None:
    notes: list[str] = []
    memory = bytearray(CASE.footprint)
    with TransferEngine() as someone:
        with pytest.raises(UsageError, match="no registered memory"):
            find(someone.segment_name, P2PHANDSHAKE)
        someone.register_memory(memory, writable=True)
        plan = replace(QUICK, target=someone.segment_name)
        with pytest.raises(Refused, match="would destroy"):
            list(run(plan))
        with pytest.raises(Refused, match="would destroy"):
            list(run(replace(plan, verify=False, cases=[replace(CASE, operation=Operation.WRITE)])))
        assert not any(memory)
        (row,) = run(replace(plan, verify=False), notes.append)
        assert row.bytes > 0
        assert row.ratio is None
        assert "no socket loop" in notes[0]
        list(run(replace(plan, force=True)))
        assert any(memory)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cases": []}, "nothing to measure"),
        ({"engines": ()}, "nothing to measure"),
        ({"duration": 0}, "times are"),
        ({"warm_up": -1}, "times are"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_plans_that_make_no_sense(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        list(run(replace(QUICK, **changes)))  # type: ignore[arg-type]


def test_errors_cross_the_pipe() -> None:
    error = RangeRefused(peer="p", address=7, length=9)
    back = error_from_json(error_to_json(error), "someone")
    assert (type(back), str(back)) == (RangeRefused, str(error))
    back = error_from_json(error_to_json(KeyError("x")), "someone")
    assert (type(back), str(back)) == (BenchFailed, "the bench's someone failed: KeyError: 'x'")


def test_a_process_that_dies_says_its_last_words() -> None:
    process = Process("target", "ours", length=4096)
    try:
        process._process.kill()
        with pytest.raises(BenchFailed, match="ours target failed: it ended with status -9"):
            process.ask({})
    finally:
        process.close()


def test_a_process_that_does_not_answer_is_ended() -> None:
    target = Process("target", "ours", length=1 << 20)
    initiator = Process("initiator", "ours", target=target.hello, length=1 << 20, metadata_server=P2PHANDSHAKE)
    try:
        with pytest.raises(BenchFailed, match="ours initiator failed"):
            initiator.ask({"do": "measure", "case": CASE.to_json(), "seconds": 60}, timeout=0.3)
    finally:
        initiator.close()
        target.close()


def test_what_a_process_cannot_be_is_raised_here() -> None:
    with pytest.raises(UsageError, match="cannot listen"):
        Process("target", "ours", length=4096, local_hostname="203.0.113.7")
