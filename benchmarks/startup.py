"""How long ``mooncake --help`` takes beside ``python -c "import typer"``: medians of interleaved runs, and their ratio.

    python benchmarks/startup.py [--runs 21] [--json]

Aim: a ratio of at most 2. Both run with the interpreter that runs this script, output thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from counts import as_count

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 30.0
"""Seconds for one run."""

COMMANDS = {
    "import typer": [sys.executable, "-c", "import typer"],
    "mooncake --help": [sys.executable, "-m", "mooncake_cli", "--help"],
    "mooncake complete-names": [sys.executable, "-m", "mooncake_cli", "complete-names", "x", "--home", "/nonexistent"],
}


def seconds(command: list[str]) -> float:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=TIMEOUT)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=as_count, default=21, help="of each command")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for command in COMMANDS.values():
        # Byte code and page cache.
        seconds(command)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.runs):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["mooncake --help"] / medians["import typer"]
    if options.json:
        print(json.dumps({"runs": options.runs, "medians": medians, "ratio": ratio}))
        return
    for name, median in medians.items():
        print(f"{name:<24} {median * 1000:6.1f} ms")
    print(f"{'ratio (aim: at most 2)':<24} {ratio:6.2f}")


if __name__ == "__main__":
    main()
