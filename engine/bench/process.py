"""One side of a bench as a process of its own, seen from the parent; ``engine.bench.child`` is the child's side.

They speak JSON lines over the child's standard input and output: each question gets ``{"result": ...}`` or
``{"error": ...}``. The first one is the arguments of what the child is to be. The child ends with its standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

import engine.errors
from engine.errors import BenchFailed, MooncakeError

START_TIMEOUT = 60.0
"""Seconds for a process to start, fill its memory and answer."""

ANSWER_TIMEOUT = 120.0
"""Seconds for an answer, beyond those for which it was asked to measure."""

END_TIMEOUT = 2.0
"""Seconds for a process to end by itself before it is killed."""

_MAX_LINE = 64 << 20


class Process:
    """The parent's side: starts it, asks it, ends it."""

    def __init__(self, role: str, kind: str, /, module: str = "engine.bench", **arguments: Any) -> None:
        """``module`` is what runs; ``arguments`` are JSON. Raises what a constructor there did, or ``BenchFailed``."""
        self.kind = kind
        self._role = f"{kind} {role}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, role, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": _module_path()},
            # Ctrl-C is for the parent, which then ends it.
            start_new_session=True,
        )
        try:
            self.hello = self.ask(arguments, timeout=START_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def ask(self, question: dict[str, Any], *, timeout: float = ANSWER_TIMEOUT) -> Any:
        """Its answer. Raises the error that it answers, or ``BenchFailed`` where it does not answer."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        overdue = threading.Timer(timeout, self._process.kill)
        overdue.daemon = True  # one that is interrupted before it is cancelled must not keep the interpreter
        try:
            overdue.start()
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline(_MAX_LINE)
        except BrokenPipeError:
            line = b""
        finally:
            overdue.cancel()
        if not line.endswith(b"\n"):
            raise BenchFailed(role=self._role, detail=self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise error_from_json(answer["error"], self._role)
        return answer["result"]

    def close(self) -> None:
        """End it. Twice is harmless."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                _close_quietly(stream)
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        self._process.kill()
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with status {status}"


def _close_quietly(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except OSError:  # a question that it did not take
        return


def _module_path() -> str:
    """A module path on which the child finds this package, wherever it was imported from."""
    ours = str(Path(engine.errors.__file__).parents[1])
    theirs = os.environ.get("PYTHONPATH", "")
    return f"{ours}{os.pathsep}{theirs}" if theirs else ours


def error_to_json(error: BaseException) -> dict[str, Any]:
    """An error as ``error_from_json`` takes it."""
    if isinstance(error, MooncakeError):
        return {"type": type(error).__name__, "fields": error.fields, "message": str(error)}
    return {"type": "", "fields": {"detail": f"{type(error).__name__}: {error}"}}


def error_from_json(data: dict[str, Any], role: str) -> MooncakeError:
    """The error of the engine's tree; what is none of the tree becomes ``BenchFailed`` of ``role``."""
    found = getattr(engine.errors, data["type"] or "BenchFailed", None)
    if found is None:
        return BenchFailed(role=role, detail=data["message"])
    error: MooncakeError = found(**{"role": role, **data["fields"]})
    return error
