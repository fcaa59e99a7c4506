from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.processes import ProcessHandle
from mooncake_cli.bench_options import block, numbers
from mooncake_cli.commands.bench_transfer import closing_line, table
from mooncake_cli.plot import check, draw
from p2pstore.errors import PackageMissing, StorageError, UsageError
from tests.cli.conftest import Mooncake

SECONDS = 150

QUICK = ("--duration", "0.2", "--warm-up", "0.05", "--rounds", "2")
UPSTREAMS_LINE = re.compile(r"Test completed: duration ([0-9.]+), batch count ([0-9]+), throughput ([0-9.]+) GB/s")

ROW = {
    "engine": "ours",
    "operation": "read",
    "block_size": 1 << 20,
    "batch_size": 1,
    "threads": 4,
    "gbps": 2.5,
    "socket_gbps": 2.0,
    "percent_of_socket": 125.0,
    "average_us": 400.04,
    "p99_us": 512.0,
    "p999_us": 1024.0,
}


def test_people_see_upstreams_columns_and_its_last_line(mooncake: Mooncake) -> None:
    done = mooncake("bench", "transfer", *QUICK, "--block-size", "64KiB,1000", "--threads", "1:2", "--batch-size", "4")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows, empty, last = done.stdout.splitlines()
    assert re.split("  +", head.strip()) == [
        "BlkSize", "Batch", "Threads", "BW (GB/s)", "% of socket", "Avg Lat (us)", "P99 (us)", "P999 (us)",
    ]  # fmt: skip
    assert [re.split("  +", row.strip())[:3] for row in rows] == [
        ["64 KiB", "4", "1"], ["64 KiB", "4", "2"], ["1000", "4", "1"], ["1000", "4", "2"],
    ]  # fmt: skip
    assert empty == ""
    found = UPSTREAMS_LINE.fullmatch(last)
    assert found is not None
    assert float(found[1]) >= 0.8
    assert int(found[2]) > 0


def test_json_and_csv_have_every_figure(mooncake: Mooncake, tmp_path: Path) -> None:
    file = tmp_path / "figures.csv"
    case = ("--operation", "write,mixed", "--block-size", "64KiB", "--threads", "1", "--verify")
    done = mooncake("bench", "transfer", *QUICK, *case, "--json", "--csv", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["verified"], document["target"], document["mooncake_version"]) == (True, None, None)
    rows = document["rows"]
    assert [row["operation"] for row in rows] == ["write", "mixed"]
    assert all(len(row["rounds_gbps"]) == len(row["rounds_socket_gbps"]) == 2 for row in rows)
    with file.open(newline="") as opened:
        written = list(csv.DictReader(opened))
    assert [(line["engine"], line["operation"], float(line["gbps"])) for line in written] == [
        ("ours", row["operation"], row["gbps"]) for row in rows
    ]


def test_quiet_is_the_last_line_alone(mooncake: Mooncake) -> None:
    done = mooncake("bench", "transfer", "-q", *QUICK, "--block-size", "4096", "--threads", "1")
    assert UPSTREAMS_LINE.fullmatch(done.stdout.strip())


def test_a_target_on_its_own_serves_until_it_is_ended(mooncake: Mooncake, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "mooncake_cli", "bench", "transfer", "--mode", "target", "--buffer-size", "1MiB"]
    target = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert target.stdout is not None
        segment = target.stdout.readline().strip()
        one = ("--block-size", "64KiB", "--threads", "1", "--target", segment)
        done = mooncake("bench", "transfer", *QUICK, *one, "--operation", "mixed", "--verify", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        document = json.loads(done.stdout)
        assert document["target"] == segment
        assert document["rows"][0]["percent_of_socket"] > 0
        target.send_signal(signal.SIGTERM)
        assert target.wait(60) == 0
        gone = mooncake("bench", "transfer", *QUICK, *one)
        assert gone.returncode == 5
        assert "cannot be reached" in gone.stderr
        assert "'mooncake bench transfer --mode target' starts one there" in gone.stderr
    finally:
        target.kill()
        target.wait()
        target.stdout.close()


def test_a_target_does_not_listen_to_the_world_unasked(mooncake: Mooncake) -> None:
    done = mooncake("bench", "transfer", "--mode", "target", "--local-hostname", "192.0.2.1")
    assert done.returncode == 7
    assert "refusing to listen on 192.0.2.1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--operation", "erase"), "--operation 'erase' is none of read, write, mixed"),
        (("--block-size", "many"), "--block-size: 'many' is not a size"),
        (("--threads", "8:2"), "a range from 8 to 2 is empty"),
        (("--threads", "0"), "--threads: '0' is not between"),
        (("--rounds", "0"), "rounds are possible"),
        (("--duration", "0"), "times are from 0"),
        (("--plot", "figure.docx"), "figure.docx ends in none of"),
        (("--target", "nowhere"), "nowhere"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_measured(
    mooncake: Mooncake, arguments: tuple[str, ...], says: str
) -> None:
    done = mooncake("bench", "transfer", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_file_that_cannot_be_written(mooncake: Mooncake) -> None:
    one = ("--block-size", "4096", "--threads", "1", "--csv", "/nowhere/figures.csv")
    done = mooncake("bench", "transfer", *QUICK, *one)
    assert done.returncode == 8
    assert "/nowhere/figures.csv" in done.stderr


def test_lists_and_ranges() -> None:
    assert numbers("--block-size", "4KiB:16KiB,1MB") == [4096, 8192, 16384, 1_000_000]
    assert numbers("--threads", " 1, 4") == [1, 4]
    with pytest.raises(UsageError, match="--threads: "):
        numbers("--threads", "1:")


@pytest.mark.parametrize(
    ("size", "shown"), [(65536, "64 KiB"), (1 << 20, "1 MiB"), (3 << 30, "3 GiB"), (1000, "1000"), (1025, "1025")]
)
def test_block_sizes(size: int, shown: str) -> None:
    assert block(size) == shown


def test_engines_and_operations_have_columns_only_where_they_differ() -> None:
    columns, rows = table([ROW])
    assert columns[0].heading == "BlkSize"
    assert rows == [["1 MiB", "1", "4", "2.500", "125.0", "400.0", "512.0", "1024.0"]]
    columns, rows = table([ROW, {**ROW, "engine": "mooncake", "operation": "write", "percent_of_socket": None}])
    assert [column.heading for column in columns][:3] == ["Op", "Engine", "BlkSize"]
    assert rows[1][:2] == ["write", "mooncake"]
    assert rows[1][6] == "-"


def test_the_last_line_of_nothing() -> None:
    assert closing_line([]) == "Test completed: duration 0.00, batch count 0, throughput 0.00 GB/s"


drawing = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="NOTHING IS DRAWN: matplotlib, the extra 'plot', is missing"
)


@drawing
def test_the_command_draws(mooncake: Mooncake, tmp_path: Path) -> None:
    file = tmp_path / "figure.png"
    # Matplotlib builds a font cache where HOME is new; its warnings are not ours.
    quiet = {"MPLCONFIGDIR": str(tmp_path / "matplotlib"), "PYTHONWARNINGS": "ignore"}
    done = mooncake("bench", "transfer", *QUICK, "--block-size", "4KiB:8KiB", "--plot", str(file), **quiet)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes().startswith(b"\x89PNG")


@drawing
def test_a_line_for_each_engine_and_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    file = tmp_path / "figure.svg"
    rows = [
        {**ROW, "engine": engine, "threads": threads, "block_size": size}
        for engine in ("ours", "mooncake") for threads in (1, 4) for size in (65536, 1 << 20)
    ]  # fmt: skip
    rows[-1]["socket_gbps"] = None
    draw(file, rows)
    text = file.read_text()
    for label in ("ours, threads: 1", "ours, threads: 4", "mooncake, threads: 1", "mooncake, threads: 4"):
        assert f"<!-- {label} -->" in text
    assert text.count("stroke-dasharray") >= 3
    with pytest.raises(StorageError, match="no-such"):
        draw(tmp_path / "no-such" / "figure.png", rows)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PackageMissing, match="drawing needs matplotlib") as caught:
        check(Path("figure.png"))
    assert """'pip install "mooncake-cli[plot]"'""" in caught.value.hint


def test_interrupting_it_leaves_no_process_behind(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "mooncake_cli", "bench", "transfer", "-v", "--duration", "30", "--threads", "1"]
    bench = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        children: list[str] = []
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children").read_text().split()
            if len(children) == 4 or bench.poll() is not None:
                break
            os.sched_yield()
            with pytest.raises(subprocess.TimeoutExpired):
                bench.wait(0.1)
        assert len(children) == 4
        with contextlib.ExitStack() as known:
            processes = [known.enter_context(ProcessHandle(int(child))) for child in children]
            bench.send_signal(signal.SIGINT)
            assert bench.wait(60) == 130
            for process in processes:  # multiprocessing's own ends when it notices that its parent has
                assert process.ended(60), process.pid
    finally:
        bench.kill()
        bench.communicate()
