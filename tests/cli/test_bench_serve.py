from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Mooncake

SMALL = ("--generate", "conversation", "--requests", "60", "--prefill", "2", "--decode", "1")
NEEDS_MATPLOTLIB = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")


def test_people_see_a_row_for_each_policy(mooncake: Mooncake) -> None:
    done = mooncake("bench", "serve", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    heading, *rows = done.stdout.splitlines()
    for word in ("Policy", "TTFT", "TBT", "Good/s", "Refused", "Wasted"):
        assert word in heading
    assert [row.split()[1] for row in rows] == [
        "random",
        "round-robin",
        "least-load",
        "prefix-local",
        "kvcache-centric",
    ]


@NEEDS_MATPLOTLIB
def test_the_document_and_the_plot(mooncake: Mooncake, tmp_path: Path) -> None:
    plot = tmp_path / "serve.png"
    several = ("--policy", "round-robin,kvcache-centric", "--admission", "none, early", "--speed", "1,4")
    done = mooncake("bench", "serve", *SMALL, *several, "--plot", str(plot), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["requests"] == 60
    assert document["costs"]["model"]["source"]
    rows = document["rows"]
    assert len(rows) == 8
    assert {row["finished"] + row["rejected"] for row in rows} == {60}
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_generated_trace_is_saved_and_is_played_like_any_other(mooncake: Mooncake, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    one = ("--policy", "kvcache-centric", "--json", "--prefill", "2", "--decode", "1")
    generated = mooncake("bench", "serve", *SMALL[:4], *one, "--save", str(trace))
    played = mooncake("bench", "serve", "--trace", str(trace), *one)
    assert len(trace.read_text().splitlines()) == 60
    first, second = (json.loads(done.stdout)["rows"][0] for done in (generated, played))
    assert first["ttft"]["mean"] == pytest.approx(second["ttft"]["mean"], abs=0.002)  # it has whole milliseconds


def test_the_same_options_give_the_same_run(mooncake: Mooncake) -> None:
    def lines() -> str:
        return mooncake("bench", "serve", *SMALL, "--random-seed", "3", "--quiet").stdout

    assert lines() == lines() != ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--trace FILE or --generate NAME"),
        (("--generate", "conversation", "--trace", "x"), "--trace FILE or --generate NAME"),
        (("--generate", "news"), "conversation, toolagent, synthetic"),
        (("--trace", "x", "--save", "y"), "for --generate"),
        ((*SMALL, "--requests", "0"), "--requests must be at least 1"),
        ((*SMALL, "--policy", "best"), "random, round-robin"),
        ((*SMALL, "--admission", "soon"), "none, late"),
        ((*SMALL, "--speed", "fast"), "--speed"),
        ((*SMALL, "--speed", "0"), "a speed must be greater than 0, and this is 0"),
        ((*SMALL, "--decode", "0"), "at least one prefill and one decode instance are needed, and there are 2 and 0"),
        ((*SMALL, "--speed", "1e-9"), "days"),
        ((*SMALL, "--tbt", "0"), "an objective must be longer than 0 seconds"),
        ((*SMALL, "--ttft", "inf"), "an objective must be a finite number of seconds"),
        ((*SMALL, "--model", "gpt"), "llama-2-70b, llama-3-8b"),
        ((*SMALL, "--gpus", "1"), "do not fit"),
        ((*SMALL, "--plot", "x.doc"), ".png"),
    ],
)
def test_what_makes_no_sense_is_refused(mooncake: Mooncake, options: tuple[str, ...], words: str) -> None:
    done = mooncake("bench", "serve", *options)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_trace_that_is_not_there_or_is_none(mooncake: Mooncake, tmp_path: Path) -> None:
    assert mooncake("bench", "serve", "--trace", str(tmp_path / "none")).returncode == 3
    (tmp_path / "text").write_text("hello\n")
    done = mooncake("bench", "serve", "--trace", str(tmp_path / "text"))
    assert done.returncode == 2
    assert "line 1: it is no JSON, from what stands at character 1 on" in done.stderr
    assert "Expecting" not in done.stderr
