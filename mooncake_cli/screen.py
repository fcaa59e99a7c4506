"""A terminal's whole screen, drawn again and again until somebody presses q; left as it was found, however it ends."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""Use the other screen, without a cursor; and the first one again."""

HOME, END_OF_LINE, REST = "\x1b[H", "\x1b[K", "\x1b[J"
"""Begin at the top; clear what is behind on a line, and below it."""

QUITS = b"qQ\x03\x04"
"""Keys: q, and Ctrl-C and Ctrl-D where they come as bytes."""


def can_draw() -> bool:
    """Whether standard input and output are a terminal that knows how to go to a place."""
    capable = os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}
    return sys.stdin.isatty() and sys.stdout.isatty() and capable


class Screen:
    """Inside ``whole_screen``."""

    def __init__(self) -> None:
        self._quit = False
        self._last: Sequence[str] = ()

    def draw(self, lines: Sequence[str]) -> None:
        """Show these from the top, as far as they fit. They have no control characters but those for colours."""
        self._last = lines
        rows = shutil.get_terminal_size().lines
        shown = (END_OF_LINE + "\r\n").join(lines[: max(1, rows - 1)])
        sys.stdout.write(f"{HOME}{shown}{END_OF_LINE}{REST}")
        sys.stdout.flush()

    def draw_again(self) -> None:
        """After the terminal showed something else."""
        self.draw(self._last)

    def wait(self, seconds: float) -> bool:
        """Wait so long for a key; False where it is one that quits, or nobody can press any."""
        until = time.monotonic() + seconds
        while not self._quit and (left := until - time.monotonic()) > 0:
            if not select.select([sys.stdin], [], [], left)[0]:
                continue
            keys = os.read(sys.stdin.fileno(), 64)
            self._quit = not keys or any(key in QUITS for key in keys)
        return not self._quit


@contextlib.contextmanager
def whole_screen() -> Iterator[Screen]:
    """The screen, until the end of the block: it is left as it was found by errors and signals, too.

    SIGTERM and SIGHUP end the block by ``SystemExit``; Ctrl-Z gives the terminal back until it is continued.
    """
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    screen = Screen()

    def enter() -> None:
        tty.setcbreak(descriptor)
        sys.stdout.write(ENTER)
        sys.stdout.flush()

    def leave() -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stdout.write(LEAVE)
            sys.stdout.flush()
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def suspend(number: int, _: FrameType | None) -> None:
        leave()
        with _handling({signal.SIGTSTP: signal.SIG_DFL}):
            os.kill(os.getpid(), number)  # it returns when we are continued
        enter()
        screen.draw_again()

    handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGTSTP: suspend}
    with _handling(handlers):
        try:
            enter()
            yield screen
        finally:
            leave()


@contextlib.contextmanager
def _handling(handlers: Mapping[signal.Signals, Callable[..., Any] | signal.Handlers]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
