"""Two checkouts that do the same in turn: this one and another. What counts is the ratio, round by round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OURS = Path(__file__).resolve().parents[1]
COMMAND_TIMEOUT = 1200.0
"""Seconds for one command: on a busy machine an object of many files takes minutes."""

Pairs = Sequence[tuple[float, float]]
"""A figure of ours and of the other's, of each round; the smaller the better."""


class Checkout:
    """One of them, with its own ``.venv``."""

    def __init__(self, root: Path) -> None:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users have bytecode: else the compiler is what is compared
        self.root = root
        self.python = root / ".venv" / "bin" / "python"
        if not self.python.exists():
            raise SystemExit(f"{self.python} is missing; run scripts/environment in {root}")

    def run(self, *words: str) -> Any:
        """One mooncake command; its JSON where that is asked for, else what it printed."""
        printed = self._printed([str(self.python), "-m", "mooncake_cli", *words])
        return json.loads(printed) if "--json" in words else printed

    def python_of(self, script: Path, *words: str) -> Any:
        """The JSON that a script prints which this checkout's interpreter runs, with its packages."""
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        return json.loads(self._printed([str(self.python), str(script), *words], environment))

    def _printed(self, command: list[str], environment: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            text=True,
            capture_output=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
        return done.stdout


def ratios(found: Mapping[str, Pairs]) -> dict[str, dict[str, float]]:
    """Of each figure the medians, and of other's over ours the median, the lowest and the highest."""
    return {
        figure: {
            "ours": statistics.median(ours for ours, _ in pairs),
            "other": statistics.median(other for _, other in pairs),
            "ratio": statistics.median(other / ours for ours, other in pairs),
            "lowest": min(other / ours for ours, other in pairs),
            "highest": max(other / ours for ours, other in pairs),
        }
        for figure, pairs in found.items()
    }


def print_table(rows: Mapping[str, Mapping[str, float]]) -> None:
    """A line a figure."""
    print(f"{'':<40}{'ours':>10}{'other':>10}{'ratio':>8}   lowest to highest")
    for figure, row in rows.items():
        spread = f"{row['lowest']:.2f} to {row['highest']:.2f}"
        print(f"{figure:<40}{row['ours']:>10.3f}{row['other']:>10.3f}{row['ratio']:>8.2f}   {spread}")
