"""``mooncake bench simulate``, compiled by mypyc: the same result in little more than half of the processor time.

::

    python benchmarks/simulate_compiled.py --receivers 1000 --random-seed 1

Takes what ``mooncake bench simulate`` takes. Compiled are what decides and the simulator, in a copy of the code in
``build/simulate-compiled``, again when a file is newer. That takes half a minute of processor, a C compiler, and mypy
as the development environment has it. The processor seconds of the simulation alone are told on stderr.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "simulate-compiled"
STAMP = BUILT / "compiled"
PACKAGES = ("engine", "p2pstore", "mooncake_cli")

COMPILED = [
    *(f"p2pstore/swarm/{name}.py" for name in ("audience", "events", "gateway", "granter", "leaving", "pace", "peer")),
    *(f"p2pstore/swarm/{name}.py" for name in ("planner", "rarity", "run_times", "supply", "unsent", "untold")),
    *(f"p2pstore/swarm/{name}.py" for name in ("window", "words", "zone")),
    *(f"p2pstore/bench/{name}.py" for name in ("links", "simulated_messages", "simulated_news", "simulated_node")),
    *(f"p2pstore/bench/{name}.py" for name in ("simulated_sends", "simulator")),
    "p2pstore/bench/virtual_clock.py",
    "p2pstore/objects/bitmap.py",
    "engine/patience.py",
    "engine/net/backoff.py",
    "engine/serving/upload_slots.py",
]

COMPILE = """
import sys
from mypyc.build import mypycify
from setuptools import setup
files, sys.argv = sys.argv[1:], ["setup.py", "-q", "build_ext", "--inplace"]
options = ["--follow-imports=silent", "--ignore-missing-imports"]
setup(name="simulator", packages=[], ext_modules=mypycify([*options, *files]))
"""

SIMULATE = """
import atexit, sys, time
sys.path.insert(0, sys.argv.pop(1))
from mooncake_cli.main import main
from p2pstore.swarm import planner
assert not planner.__file__.endswith(".py"), "it is not compiled"
began = time.process_time()
atexit.register(lambda: print(f"{time.process_time() - began:.2f} s of processor", file=sys.stderr))
main()
"""


def newest() -> float:
    """When a file of ours was last changed."""
    return max(path.stat().st_mtime for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def build() -> None:
    """Copy the code, and compile in the copy what a simulation spends its time in."""
    if STAMP.exists() and STAMP.stat().st_mtime > newest():
        return
    shutil.rmtree(BUILT, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, BUILT / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", COMPILE, *COMPILED]
    subprocess.run(command, cwd=BUILT, env={**os.environ, "CFLAGS": "-g0"}, check=True, stdout=sys.stderr)
    STAMP.touch()


def main() -> int:
    """Build what is not built, and simulate."""
    build()
    words = ["bench", "simulate", *sys.argv[1:]]
    return subprocess.run([sys.executable, "-c", SIMULATE, str(BUILT), *words], cwd=BUILT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
