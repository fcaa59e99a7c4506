"""The real Mooncake: the newest wheel, which the dev extra installs, and older ones, each fetched once."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "mooncake-transfer-engine-non-cuda"
OLD = "0.3.11.post1"
"""The last release that speaks version 1 of the transfer's protocol alone."""

OLDEST = "0.3.9"
"""The oldest release whose store is served."""

BETWEEN = "0.3.12.post1"
"""A release whose wheel without CUDA is linked to CUDA's runtime all the same."""

CUDA_RUNTIME = ("nvidia-cuda-runtime-cu12", "12.9.79")

INSTALL_SECONDS = 300


@dataclass(frozen=True)
class Wheel:
    """A wheel as a process needs it: its variables, and where its programs are."""

    name: str
    environment: dict[str, str]
    package: Path

    def run(self, script: Path, **more: str) -> subprocess.Popen[str]:
        """A process of this wheel's, with pipes."""
        return subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **self.environment, **more},
        )


@functools.cache
def wheel(name: str) -> Wheel:
    """``newest``, ``newest-as-v1`` or a release; skips the test, loudly, where it cannot be had."""
    environment = {"MC_FORCE_TCP": "1", "MC_TCP_BIND_ADDRESS": "127.0.0.1", "GLOG_minloglevel": "2"}
    if name == "newest-as-v1":
        environment["MC_TCP_PROTO"] = "1"
    if name[0].isdigit():
        environment["PYTHONPATH"] = str(fetched(name))
    if name == BETWEEN:
        environment["LD_LIBRARY_PATH"] = str(fetched(CUDA_RUNTIME[1], CUDA_RUNTIME[0]) / "nvidia/cuda_runtime/lib")
    code = "import mooncake.engine, mooncake.store; print('at', mooncake.engine.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it does not start"])[-1]
        pytest.skip(f"NO INTEROP TEST: {PACKAGE} ({name}) is not usable: {why}")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("at "))
    return Wheel(name, environment, Path(line.removeprefix("at ")).parent)


def fetched(version: str, package: str = PACKAGE) -> Path:
    """A directory with this release of a package, which is installed into the user's cache once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = f"{sys.implementation.cache_tag}"
    directory = cache / "mooncake-tests" / f"{package}-{version}-{python}"
    with _locked(directory.with_suffix(".lock")):
        if directory.is_dir():
            return directory
        unfinished = directory.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        # Not into this environment: it holds the newest one. What the package asks for is not needed here.
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        done = subprocess.run(
            [*install, "--no-deps", "--target", str(unfinished), f"{package}=={version}"],
            capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            pytest.skip(f"NO INTEROP TEST WITH {package} {version}: it cannot be fetched: {why}")
        unfinished.rename(directory)
    return directory


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
