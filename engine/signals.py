"""The signals by which a process is told to end, and a block that cleans up before they end it.

A service manager sends SIGTERM, a terminal SIGINT for Ctrl-C, and SIGHUP when its window is closed or a connection
breaks. Whoever sends one may send another at once: timeout(1) sends SIGTERM to its child and then to the group that the
child is in. What cleans up at the first must not be broken off by the second.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


def ending() -> tuple[signal.Signals, ...]:
    """SIGTERM, SIGINT, and SIGHUP unless this process was started to live on without its terminal, as by nohup(1)."""
    hung_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hung_up)


@contextlib.contextmanager
def cleaned_up() -> Iterator[None]:
    """Let the first of those signals unwind the block, and its successors wait for nothing: they are ignored.

    SIGINT raises ``KeyboardInterrupt`` in the block, the others ``SystemExit`` with the status that a shell gives such
    an end. Call it from the main thread. What the block does on its way out must end by itself, since only SIGKILL
    ends it sooner.
    """

    def end(number: int, _: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in ending()}
    try:
        for number in before:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
