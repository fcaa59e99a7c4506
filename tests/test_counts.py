"""Every count and amount that a benchmark takes is read by ``benchmarks/counts.py``: what is none is refused in a sentence."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

OPTION = re.compile(
    r'add_argument\(\s*"(--[a-z-]+)",[^)]*?type=(int|float|as_count|as_counts|as_count_or_none|as_amount)\b'
)

FOUND = [
    (script.name, *option)
    for script in sorted(BENCHMARKS.glob("*.py"))
    for option in OPTION.findall(script.read_text())
]
FIRST = {script: option for script, option, _ in reversed(FOUND)}


@pytest.fixture
def counts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("counts", BENCHMARKS / "counts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_benchmark_reads_a_number_by_itself() -> None:
    assert [found for found in FOUND if found[2] in ("int", "float")] == []
    assert len(FOUND) > 40
    assert len(FIRST) > 15


@pytest.mark.parametrize("script", FIRST)
def test_nothing_is_refused_in_a_sentence(script: str) -> None:
    command = [sys.executable, str(BENCHMARKS / script), FIRST[script], "none"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert re.search(rf"error: argument {FIRST[script]}: 'none' (is no|are no) ", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many"])
def test_what_is_no_count_is_refused(counts: ModuleType, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no count, such as"):
        counts.as_count(text)
    assert counts.as_count("4") == counts.as_count_or_none("4") == 4
    assert counts.as_count_or_none("0") == 0


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "many"])
def test_what_is_no_amount_is_refused(counts: ModuleType, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no amount, such as"):
        counts.as_amount(text)
    assert counts.as_amount("0.25") == 0.25
