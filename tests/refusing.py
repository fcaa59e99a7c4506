"""A file system that refuses, lies or hangs by script: it stands in the place of the kernel's calls.

Only what lies below its root is concerned; a descriptor is known by what it was opened from. Calls have the names of
``engine.files.system``; an fsync of a directory is "fsync of a directory".
"""

from __future__ import annotations

import inspect
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.files.refusals import said
from engine.files.stamps import _remembered
from engine.files.system import System, system

FSYNC_DIRECTORY = "fsync of a directory"

HANG_SECONDS = 30.0
"""A call that hangs is let go after so long, should its test forget it."""

CALLS = [name for name, _ in inspect.getmembers(System) if not name.startswith("_")]

Answer = Callable[..., Any]


class RefusingFileSystem:
    """What lies below ``root`` is on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = str(root)
        self.asked: Counter[str] = Counter()
        self.go_on = threading.Event()
        self._script: dict[str, Answer] = {}
        said.clear()
        _remembered.clear()
        for name in CALLS:
            monkeypatch.setattr(system, name, self._call(name, getattr(System, name)))

    def refuses(self, call: str, number: int, times: int | None = None) -> None:
        """Answer ``call`` with an error: always, or the next so many times."""
        left = [times]

        def answer(real: Answer, *args: Any, **kwargs: Any) -> Any:
            if left[0] is not None:
                if not left[0]:
                    return real(*args, **kwargs)
                left[0] -= 1
            raise OSError(number, os.strerror(number))

        self._script[call] = answer

    def answers(self, call: str, answer: Answer) -> None:
        """Have ``answer(real, *arguments)`` stand for ``call``."""
        self._script[call] = answer

    def hangs(self, call: str) -> None:
        """``call`` does not return before ``go_on`` is set."""

        def answer(real: Answer, *args: Any, **kwargs: Any) -> Any:
            self.go_on.wait(HANG_SECONDS)
            return real(*args, **kwargs)

        self._script[call] = answer

    def behaves(self) -> None:
        """From now on it is like any other."""
        self._script.clear()

    def _call(self, name: str, real: Answer) -> Answer:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._script or not any(map(self._below, args[:2])):
                return real(*args, **kwargs)
            key = FSYNC_DIRECTORY if name == "fsync" and self._is_directory(args[0]) else name
            answer = self._script.get(key)
            if answer is None:
                return real(*args, **kwargs)
            self.asked[key] += 1
            return answer(real, *args, **kwargs)

        return call

    def _below(self, what: object) -> bool:
        if isinstance(what, int) and not isinstance(what, bool):
            try:
                what = os.readlink(f"/proc/self/fd/{what}")
            except OSError:
                return False
        if not isinstance(what, (str, os.PathLike)):
            return False
        what = os.fspath(what)
        if what.startswith("/proc/self/fd/"):
            what = os.path.join(os.path.realpath(os.path.dirname(what)), os.path.basename(what))
        return (what + "/").startswith(self.root + "/")

    @staticmethod
    def _is_directory(fd: int) -> bool:
        return os.path.isdir(f"/proc/self/fd/{fd}")
