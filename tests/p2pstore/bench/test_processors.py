"""What the processors did between two moments, read as proc(5) writes it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from p2pstore.bench.processors import ProcessorTime, busy_share

STAT = """cpu  900 0 300 1200 0 0 0 0 0 0
cpu0 100 10 50 700 40 5 15 30 7 0
cpu1 800 0 250 500 0 0 0 0 0 0
cpu10 1 1 1 1 1 1 1 1 1 1
intr 12345
"""


def test_only_the_processors_that_may_be_used_count(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(STAT)
    assert ProcessorTime.now(tmp_path, {0}) == ProcessorTime(total=950, idle=740)
    assert ProcessorTime.now(tmp_path, {0, 1}) == ProcessorTime(total=2500, idle=1240)


@pytest.mark.parametrize("text", ["", "cpu0 1 2\n", "cpu0 a b c d e f g h\n"])
def test_a_system_that_does_not_tell(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    assert ProcessorTime.now(tmp_path, {0}) is None
    assert ProcessorTime.now(tmp_path / "none", {0}) is None


def test_the_share_is_of_what_passed() -> None:
    assert busy_share(ProcessorTime(1000, 400), ProcessorTime(1200, 450)) == pytest.approx(0.75)
    assert busy_share(ProcessorTime(1000, 400), ProcessorTime(1000, 400)) is None
    assert busy_share(None, ProcessorTime(1, 1)) is None


def test_this_machine_tells() -> None:
    before = ProcessorTime.now()
    end = time.monotonic() + 60
    while not (share := busy_share(before, ProcessorTime.now())) and time.monotonic() < end:
        os.getpid()  # a first tick may be one of another processor that is idle
    assert share is not None
    assert 0 < share <= 1
