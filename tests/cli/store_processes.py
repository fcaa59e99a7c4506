"""A store's master and a client that gives it memory, as processes of our own command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECONDS = 60
"""For a process to say that it serves, and to end."""


class Process:
    """One command that runs until it is told to end; ``told`` is the line of JSON that it began with."""

    def __init__(self, environment: Mapping[str, str], directory: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "mooncake_cli", "store", *arguments, "--json"]
        self.log = directory / f"{arguments[0]}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=dict(environment), cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log.read_text()
        self.told: dict[str, Any] = json.loads(line)

    def end(self) -> int:
        self._process.terminate()
        try:
            self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        return self._process.returncode


class Pool:
    """A master on free ports, and a client that gives it memory. ``variables`` name the master to commands."""

    def __init__(self, environment: Mapping[str, str], directory: Path, size: str = "64MiB") -> None:
        self.master = Process(environment, directory, "master", "--listen", ":0", "--metrics", ":0")
        self.variables = {
            "MOONCAKE_MASTER": self.master.told["address"],
            "MOONCAKE_MASTER_ADMIN": self.master.told["metrics"],
        }
        try:
            self.giver = Process({**environment, **self.variables}, directory, "give", size)
        except BaseException:
            self.master.end()
            raise

    def close(self) -> None:
        try:
            assert self.giver.end() == 0
        finally:
            assert self.master.end() == 0
