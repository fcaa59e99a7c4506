"""Sweeps over real processes: our store, and upstream's where its wheel loads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from engine.bench.statistics import Measurement
from engine.errors import BenchFailed, UsageError
from p2pstore.bench.store import Case, Engine, Operation, Plan, Row, Where, run
from p2pstore.bench.store.run import MAX_SEGMENT

CASE = Case(Operation.GET, 65536, 2, 2)
QUICK = Plan(cases=[CASE], duration=0.2, rounds=2)


@pytest.mark.parametrize("where", Where)
def test_ours(where: Where) -> None:
    cases = [CASE, replace(CASE, operation=Operation.PUT, batch=1), replace(CASE, operation=Operation.EXIST)]
    engines = (Engine.OURS, Engine.OURS_TCP) if where is Where.OTHER else (Engine.OURS,)
    rows = list(run(replace(QUICK, cases=cases, where=where, engines=engines)))
    assert [(row.case, row.engine) for row in rows] == [(case, engine) for case in cases for engine in engines]
    for row in rows:
        document = row.to_json()
        assert document["keys_per_second"] > 0
        assert 0 < document["p50_us"] <= document["p99_us"]
        assert document["ratio"] is None
        assert len(document["rounds_keys_per_second"]) == 2
        assert (document["gbps"] > 0) == (row.case.operation is not Operation.EXIST)


def test_both_in_turns() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import mooncake.store"], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it does not load"])[-1]
        pytest.skip(f"NOT MEASURED WITH UPSTREAM'S STORE: {why}")
    rows = list(run(replace(QUICK, engines=(Engine.OURS, Engine.MOONCAKE))))
    assert [row.engine for row in rows] == [Engine.OURS, Engine.MOONCAKE]
    assert rows[0].beside == rows[1].rounds
    assert rows[0].to_json()["ratio"] > 0
    assert rows[1].to_json()["ratio"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"cases": []},
        {"engines": ()},
        {"duration": 0},
        {"rounds": 0},
        {"cases": [replace(CASE, size=1 << 30, batch=MAX_SEGMENT >> 30)]},
    ],
)
def test_what_cannot_be_measured(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        next(run(replace(QUICK, **change)))  # type: ignore[arg-type]


def test_the_ratio_is_that_of_the_same_rounds() -> None:
    ours, theirs = [Measurement(1, 10, 0), Measurement(1, 30, 0)], [Measurement(1, 5, 0), Measurement(1, 10, 0)]
    assert Row(CASE, Engine.OURS, ours, theirs).ratio == 2.5
    assert Row(CASE, Engine.OURS, ours, theirs).keys == 40


def test_a_client_that_finds_no_master_is_a_failure_of_the_bench() -> None:
    from engine.bench.process import Process

    with pytest.raises(BenchFailed, match="ours client"):
        Process(
            "worker", "ours", "p2pstore.bench.store", master="127.0.0.1:1", length=4096, segment=0, room=1 << 20
        ).close()
