"""File systems of a test's own, where it may mount any."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(kind: str, point: Path, options: str, source: str = "none") -> Iterator[Path]:
    """Mount a file system, for as long as the ``with`` block; the test is skipped where that may not be done."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    command = ["mount", "-t", kind, *(["-o", options] if options else []), source, str(point)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount {kind}: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True, timeout=30)


@contextmanager
def bound(source: Path, point: Path) -> Iterator[Path]:
    """Show ``source`` at ``point``, too."""
    with mounted("none", point, "bind", str(source)):
        yield point


@contextmanager
def overlay(root: Path) -> Iterator[Path]:
    """An overlay at ``root/merged``, whose lower layer is ``root/lower`` as it is now."""
    for name in ("upper", "scratch", "merged"):
        (root / name).mkdir()
    options = f"lowerdir={root}/lower,upperdir={root}/upper,workdir={root}/scratch"
    with mounted("overlay", root / "merged", options) as point:
        yield point
