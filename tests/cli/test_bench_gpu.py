from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from engine.cuda import load
from engine.errors import GpuUnavailable
from mooncake_cli.commands.bench_gpu import report, table
from mooncake_cli.output import Output
from mooncake_cli.plot import draw_layouts
from tests.cli.conftest import Mooncake

ROW: dict[str, Any] = {
    "layout": "one", "devices": 1, "seconds": 2.0, "least_seconds": 1.9, "most_seconds": 2.5, "gbps": 4.295,
    "times_one": 1.0, "received_times": 1.0, "cpu_seconds_per_gb": 0.31,
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "bytes": 8_589_934_592, "devices": ["cuda:0", "cuda:1"], "peers": [[0, 1]], "agents": 1, "transport": "tcp",
    "rounds": 5, "verified": True, "most_pinned_bytes": 1 << 28,
    "rows": [ROW, {**ROW, "layout": "shard", "devices": 2, "times_one": None, "received_times": None}],
}  # fmt: skip


def a_gpu() -> bool:
    try:
        load.cuda()
    except GpuUnavailable:
        return False
    return True


@pytest.mark.skipif(a_gpu(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_says_so(mooncake: Mooncake) -> None:
    done = mooncake("bench", "gpu")
    assert (done.returncode, done.stdout) == (11, "")
    assert len(done.stderr.splitlines()) == 2, "with what to do"
    document = json.loads(mooncake("bench", "gpu", "--json").stderr)
    assert document["error"]["type"] == "GpuUnavailable"
    assert "'mooncake topology'" in document["error"]["advice"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--size", "much"), "--size: "),
        (("--transport", "pigeon"), "the transport must be one of"),
        (("--plot", "times.txt"), "times.txt ends in none of"),
    ],
)
def test_slips_are_told_before_anything_begins(mooncake: Mooncake, options: tuple[str, ...], words: str) -> None:
    done = mooncake("bench", "gpu", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_people_see_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = report(DOCUMENT, Output().table(*table(DOCUMENT))).splitlines()
    assert lines[0].split()[:3] == ["LAYOUT", "GPUS", "TIME"]
    assert lines[1].split()[:2] == ["one", "1"]
    assert lines[1].split()[-3:] == ["1.00", "1.00", "0.31"]
    assert lines[2].split()[-3:] == ["-", "-", "0.31"]
    assert "over tcp, 5 rounds, verified; devices: cuda:0, cuda:1" in lines[3]
    assert lines[4].startswith("GPUs that copy to one another: cuda:0, cuda:1; pinned at most ")


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_the_plot(tmp_path: Path) -> None:
    draw_layouts(tmp_path / "gpus.png", DOCUMENT)
    assert (tmp_path / "gpus.png").read_bytes().startswith(b"\x89PNG")
