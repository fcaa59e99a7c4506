"""Write constraints.txt: one version of each package that the project or its tests need, for all Pythons at once.

    python scripts/generate_constraints.py python3.10 python3.11 python3.12 python3.13

Each interpreter named makes a fresh virtual environment, installs the project with what tests need, and says what it
got. Where they differ, a marker says which is meant.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "constraints.txt"
EXTRAS = "blake3,dev,redis"
"""Not rdma: pyverbs is built against the rdma-core that a machine has."""
OURS = "mooncake-cli"


def freeze(python: str) -> tuple[str, dict[str, str]]:
    """An interpreter's version, like ``3.11``, and the version of each package that it installs."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([python, "-m", "venv", directory], check=True)
        own = str(Path(directory, "bin", "python"))
        pip = [own, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--no-input", f"{ROOT}[{EXTRAS}]"], check=True)
        lines = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout.splitlines()
        said = [own, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        version = subprocess.run(said, check=True, capture_output=True, text=True).stdout.strip()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pins.pop(OURS, None)
    return version, pins


def marker(versions: list[str], every: list[str]) -> str:
    """The condition that holds for ``versions`` of the tried ``every``; open where they reach an end of it."""
    if versions == every:
        return ""
    first, last = every.index(versions[0]), every.index(versions[-1])
    if versions != every[first : last + 1]:
        return "; " + " or ".join(f"python_version == '{version}'" for version in versions)
    bounds = []
    if first > 0:
        bounds.append(f"python_version >= '{versions[0]}'")
    if last + 1 < len(every):
        bounds.append(f"python_version < '{every[last + 1]}'")
    return "; " + " and ".join(bounds)


def merge(frozen: dict[str, dict[str, str]]) -> list[str]:
    """Lines of the file, from each Python's packages."""
    every = sorted(frozen, key=lambda version: [int(part) for part in version.split(".")])
    lines = []
    for name in sorted({name for pins in frozen.values() for name in pins}, key=str.lower):
        users = [version for version in every if name in frozen[version]]
        pinned = sorted({frozen[version][name] for version in users})
        for pin in pinned:
            same = [version for version in users if frozen[version][name] == pin]
            # A package that only some Pythons need is pinned for all: a constraint asks for nothing.
            lines.append(f"{name}=={pin}" + ("" if len(pinned) == 1 else marker(same, every)))
    return lines


def main() -> None:
    """Ask each interpreter and write the file."""
    pythons = sys.argv[1:] or [sys.executable]
    frozen = dict(freeze(python) for python in pythons)
    head = [
        "# The versions that are tested. Made by:",
        f"#   python scripts/generate_constraints.py {' '.join(f'python{version}' for version in frozen)}",
    ]
    FILE.write_text("\n".join([*head, *merge(frozen)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
