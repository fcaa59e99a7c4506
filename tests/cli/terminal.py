"""A command on a terminal of its own, as a person has it over ssh."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

WAIT = 150.0


class Terminal:
    """Runs ``mooncake`` with ``arguments``; ``shown`` is all that it wrote."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], directory: Path) -> None:
        self.shown = ""
        self.control, self._terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mooncake_cli", *arguments],
            env=environment,
            cwd=directory,
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            start_new_session=True,
            preexec_fn=_take_the_terminal,  # noqa: PLW1509 - so that Ctrl-C reaches it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(WAIT)
        self._read(0.1)
        for descriptor in (self.control, self._terminal):
            os.close(descriptor)

    @property
    def attributes(self) -> Any:
        """How the terminal is set."""
        return termios.tcgetattr(self._terminal)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.control, keys)

    def until(self, text: str) -> None:
        """Wait until it has shown a text."""
        until = time.monotonic() + WAIT
        while text not in self.shown:
            assert time.monotonic() < until, self.shown
            assert self.process.poll() is None or self._read(0.5), self.shown
            self._read(0.1)

    def status(self) -> int:
        """Wait for its end."""
        until = time.monotonic() + WAIT
        while self.process.poll() is None:
            assert time.monotonic() < until, self.shown
            self._read(0.1)
        self._read(0.2)
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        found = False
        while select.select([self.control], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                self.shown += os.read(self.control, 65536).decode(errors="replace")
                found = True
                seconds = 0
                continue
            break
        return found


def _take_the_terminal() -> None:
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
