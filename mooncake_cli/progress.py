"""Progress of a long call, for each of its steps: a tqdm bar with rate, time left and number of peers, or lines."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, TextIO

from p2pstore.objects.units import format_seconds, format_size

LINE_SECONDS = 10.0
"""Between lines where there is no terminal."""

UNKNOWN_WIDTH, UNKNOWN_HEIGHT = 80, 24
"""Columns and lines of a terminal that does not say how large it is."""

UNCOUNTED = "{desc} [{elapsed}]"
"""What is shown of a step that has nothing to count."""

SIZED = "{l_bar}{bar}| {done_size}/{total_size} [{elapsed}<{remaining}, {speed}{postfix}]"
UNSIZED = "{desc}: {done_size} [{elapsed}, {speed}{postfix}]"
"""What is shown of a step that counts bytes, whose total is known or not: in the units of all other output."""


class Progress:
    """Shows nothing: what ``--quiet`` gets."""

    def begin(self, verb: str, unit: str) -> None:
        """What follows is another step, or still the same one.

        ``unit`` is what it counts: bytes (``B``), a word, or nothing where it is empty.
        """

    def update(self, done: int, total: int, peers: int | None = None) -> None:
        """``done`` of ``total`` units are done, with ``peers`` peers where that has a meaning; 0 is no known total."""

    def above(self, text: str) -> bool:
        """Write ``text`` above the bar; False where there is no bar, and the caller writes it as ever."""
        del text
        return False

    def close(self) -> None:
        """Take the bar away."""


class LineProgress(Progress):
    """A line each ``LINE_SECONDS``, for logs: what is being done, how far it is, how fast, and how long it takes."""

    def __init__(
        self, verb: str, write: Callable[[str], object], unit: str = "B", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._verb = verb
        self._unit = unit
        self._write = write
        self._clock = clock
        self._next = clock() + LINE_SECONDS
        self._began = clock()
        self._before: tuple[float, int] | None = None

    def begin(self, verb: str, unit: str) -> None:
        """See ``Progress.begin``."""
        if (verb, unit) != (self._verb, self._unit):
            self._verb, self._unit = verb, unit
            self._began = self._clock()
            self._before = None

    def update(self, done: int, total: int, peers: int | None = None) -> None:
        """Write a line where it is time for one. The rate is that since the line before, or since the step began."""
        now = self._clock()
        if self._before is None:
            self._before = (now, done)
        if now < self._next:
            return
        self._next = now + LINE_SECONDS
        self._write(self._line(done, total, peers, now))
        self._before = (now, done)

    def _line(self, done: int, total: int, peers: int | None, now: float) -> str:
        parts = []
        then, before = self._before or (now, done)
        rate = (done - before) / (now - then) if now > then and done > before else 0.0
        if self._unit:
            parts.append(self._shown(done) + (f" of {self._shown(total)} ({100 * done // total} %)" if total else ""))
            parts += [f"{self._shown(rate)}/s"] if self._unit == "B" else []
            parts += [f"{format_seconds((total - done) / rate)} left"] if rate and total > done else []
        else:
            parts.append(f"for {format_seconds(now - self._began)}")
        parts += [f"{peers} peer{'' if peers == 1 else 's'}"] if peers else []
        return f"{self._verb}: {', '.join(parts)}"

    def _shown(self, amount: float) -> str:
        return format_size(amount) if self._unit == "B" else f"{amount:,.0f} {self._unit}"


class BarProgress(Progress):
    """A tqdm bar on a terminal, a new one for each step: what one took says nothing of what the next will take."""

    def __init__(self, verb: str, stream: TextIO, unit: str = "B") -> None:
        self._verb = verb
        self._unit = unit
        self._stream = stream
        self._bar: Any = None

    def begin(self, verb: str, unit: str) -> None:
        """See ``Progress.begin``."""
        if (verb, unit) != (self._verb, self._unit):
            self.close()
            self._verb, self._unit = verb, unit

    def update(self, done: int, total: int, peers: int | None = None) -> None:
        """Move the bar; what a resumed call had done before counts neither for the rate nor for the time left."""
        if self._bar is None:
            self._bar = self._made(done, total)
        if peers:
            self._bar.set_postfix_str(f"{peers} peer{'' if peers == 1 else 's'}", refresh=False)
        self._bar.total = total or None
        if self._unit == "B":
            self._bar.bar_format = SIZED if total else UNSIZED
        if done == self._bar.n:
            self._bar.refresh()  # the clock and the number of peers go on where the bytes do not
        else:
            self._bar.update(done - self._bar.n)

    def _made(self, done: int, total: int) -> Any:
        sized = os.get_terminal_size(self._stream.fileno()).columns > 0
        return _bar_class()(
            total=total or None,
            initial=done,
            desc=self._verb,
            file=self._stream,
            unit=f" {self._unit}",
            bar_format={"": UNCOUNTED, "B": SIZED if total else UNSIZED}.get(self._unit),
            # A terminal that does not tell its size (a container's, often) would get an empty bar, or none.
            ncols=None if sized else UNKNOWN_WIDTH,
            nrows=None if sized else UNKNOWN_HEIGHT,
            dynamic_ncols=sized,
            leave=False,
            miniters=1,
        )

    def above(self, text: str) -> bool:
        """Write ``text`` above the bar, so that the two do not share a line."""
        if self._bar is None:
            return False
        self._bar.write(text, file=self._stream, end="")
        return True

    def close(self) -> None:
        """Take the bar away, so that the result stands where it stood."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@functools.lru_cache(maxsize=1)
def _bar_class() -> Any:
    """A tqdm bar that can say sizes as ``format_size`` does: its own are ``1.50G``, and of either family."""
    from tqdm import tqdm  # noqa: PLC0415 - only a terminal needs it, and it costs a quarter of a start

    class Bar(tqdm):  # type: ignore[type-arg] # it iterates over nothing
        @property
        def format_dict(self) -> dict[str, Any]:
            """What a format may name."""
            found = super().format_dict
            moved, seconds = found["n"] - found["initial"], found["elapsed"]
            rate = found["rate"] or (moved / seconds if moved and seconds else None)
            speed = "?" if rate is None else f"{format_size(rate)}/s"
            sizes = {"done_size": format_size(found["n"]), "total_size": format_size(found["total"] or 0)}
            return {**found, **sizes, "speed": speed}

    return Bar
