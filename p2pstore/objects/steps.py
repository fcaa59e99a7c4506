"""What a long call is doing now, and how far that is, so that none of its seconds is without a name."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

REPORT_SECONDS = 0.2
"""Between events of one call."""


class Steps:
    """The steps of one call, one after the other. Any thread may begin one, and count what it has done of it."""

    def __init__(self) -> None:
        self.name = ""
        """What is being done, as users are told; empty before the first step and between steps."""
        self._unit = ""
        self._done = 0
        self._total = 0
        self._notes: list[str] = []
        self._lock = threading.Lock()

    def begin(self, name: str, total: int = 0, unit: str = "") -> None:
        """Begin a step of ``total`` units: bytes (``B``), or a word in the plural. 0: nobody knows how many.

        Without a unit nothing is counted.
        """
        with self._lock:
            self.name, self._unit, self._done, self._total = name, unit, 0, total

    def end(self) -> None:
        """What follows is told of in another way."""
        self.begin("")

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        with self._lock:
            self._done += count

    def note(self, text: str) -> None:
        """Have whoever waits told of something, as of what holds a step up."""
        with self._lock:
            self._notes.append(text)

    def notes(self) -> list[str]:
        """What was noted since the last call."""
        with self._lock:
            taken, self._notes = self._notes, []
        return taken

    def event(self) -> dict[str, Any] | None:
        """The step as a ``progress`` event; None between steps."""
        with self._lock:
            if not self.name:
                return None
            return {
                "event": "progress",
                "step": self.name,
                "unit": self._unit,
                "done": self._done,
                "total": self._total,
                "peers": 0,
            }


@contextlib.asynccontextmanager
async def reported(steps: Steps, emit: Callable[[dict[str, Any]], None]) -> AsyncIterator[Callable[[], None]]:
    """Tell ``emit`` of the step now and then, from the event loop, while something is done.

    What ``emit`` raises is raised in the end, or before by the function that this gives.
    """

    def tell_notes() -> None:
        for text in steps.notes():
            emit({"event": "note", "text": text})

    async def report() -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            tell_notes()
            event = steps.event()
            if event is not None:
                emit(event)

    task = asyncio.create_task(report())

    def check() -> None:
        if task.done():
            task.result()  # whoever is told raised: this call is theirs

    try:
        yield check
    finally:
        task.cancel()
    check()
    tell_notes()
