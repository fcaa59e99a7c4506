"""Where a request waits for an instance, and how others make it wait no more.

What others may do to a request (the policy moves it; nothing has come for too long; the proxy ends) cancels its task,
but only while it waits here; all else it notices before it waits again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from p2pstore.serving.proxy.dispatch import Fate
from p2pstore.serving.proxy.fleet import Member


class Waits:
    """Of one request, whose task this is made in."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._member: Member | None = None
        self._since = 0.0
        self._cut = False
        self.fate: Fate | None = None
        """How the policy has moved it."""
        self.ending = False

    def on(self, member: Member) -> None:
        """It waits for an instance from here on. Raises ``CancelledError`` where it is to do something else by now."""
        if self.ending or self.fate is not None:
            raise asyncio.CancelledError
        self._member = member
        self._since = self._clock()

    def over(self) -> None:
        """What it waited for is there."""
        self._member = None

    # What others do

    def moved(self, fate: Fate) -> None:
        """The policy has moved it."""
        self.fate = fate
        self._cancel()

    def end(self) -> None:
        """The proxy ends."""
        self.ending = True
        self._cancel()

    def look(self, now: float, idle: float) -> bool:
        """Whether it waits; and it does so no more where nothing has come for ``idle`` seconds."""
        if self._member is None:
            return False
        if now - self._since >= idle:
            self._cancel()
        return True

    def _cancel(self) -> None:
        if self._member is not None and not self._cut and self._task is not None:
            self._cut = True
            self._task.cancel()

    # What it makes of that

    def ended(self) -> tuple[bool, Member | None]:
        """It was cancelled: whether that was done here, and for whom it had waited. It can wait again."""
        ours = self._cut or self.ending or self.fate is not None
        member, self._member = self._member, None
        if self._cut:
            self._cut = False
            uncancel = getattr(self._task, "uncancel", None)  # of Python 3.11 on
            if uncancel is not None:
                uncancel()
        return ours, member
