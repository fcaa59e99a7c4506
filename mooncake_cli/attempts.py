"""A call that is made again while there is patience, and that ends when its time is over."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mooncake_cli.calls import follow
from mooncake_cli.output import Output
from mooncake_cli.progress import LINE_SECONDS
from mooncake_cli.text import printable
from p2pstore.agent.patience import Patience
from p2pstore.errors import AgentEnded, AgentGone, AgentNotRunning, GetTimedOut, MooncakeError
from p2pstore.objects.units import format_seconds

MAX_TIMER = 7 * 86400.0
"""Seconds that a timer is set to at most: nobody runs one command for longer."""

LOOK_SECONDS = 0.5
"""Between looks at the clock while waiting."""

T = TypeVar("T")


class Attempts:
    """Makes calls for one command, which takes ``limit`` seconds in all; each call has a patience of its own.

    The calls are to an agent that has answered this command before: one that is not there any more has gone meanwhile.
    """

    def __init__(self, output: Output, patience: Callable[[], Patience], limit: float) -> None:
        self.output = output
        self._patience = patience
        self._limit = limit
        self._until = time.monotonic() + limit
        self._written = False  # what has been written once cannot be written again

    def follow(self, begin: Callable[[], Iterator[dict[str, Any]]], name: str, verb: str) -> dict[str, Any]:
        """The result of a long call. Raises ``GetTimedOut``, or what its last attempt raised."""
        patience = self._patience()
        return self._again(lambda: follow(self.output, self._watched(begin(), patience), verb), patience, name)

    def call(self, work: Callable[[], T], name: str) -> T:
        """What comes of a short call; likewise."""
        return self._again(work, self._patience(), name)

    def _again(self, work: Callable[[], T], patience: Patience, name: str) -> T:
        told, told_at = "", 0.0
        began = time.monotonic()
        with self._alarm(name):
            while True:
                try:
                    return work()
                except GetTimedOut:
                    raise
                except AgentNotRunning as error:
                    if isinstance(error, AgentEnded):  # it says why
                        raise
                    raise AgentGone(**error.fields) from None
                except MooncakeError as error:
                    pause = None if self._written else patience.after(error)
                    if pause is None:
                        raise
                    text, now = str(error), time.monotonic()
                if text != told:
                    self.output.message(printable(f"{text}; trying again"))
                    told, told_at = text, now
                elif now - told_at >= LINE_SECONDS and not sys.stderr.isatty():
                    self.output.message(printable(f"waiting for {format_seconds(now - began)}: {text}"))
                    told_at = now
                self._sleep(pause)

    def _sleep(self, seconds: float) -> None:
        """Wait, and show that on a terminal."""
        until = time.monotonic() + seconds
        with self.output.progress("waiting", "") as bar:
            while (left := until - time.monotonic()) > 0:
                bar.update(0, 0)
                time.sleep(min(left, LOOK_SECONDS))

    @contextlib.contextmanager
    def _alarm(self, name: str) -> Iterator[None]:
        """Raise ``GetTimedOut`` from whatever is done when the time is over."""
        left = self._until - time.monotonic()
        if left > MAX_TIMER:
            yield
            return
        late = GetTimedOut(name=name, time=format_seconds(self._limit))

        def over(*_: object) -> None:
            raise late

        before = signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _watched(self, events: Iterator[dict[str, Any]], patience: Patience) -> Iterator[dict[str, Any]]:
        """The same events; patience hears of bytes that came."""
        with contextlib.closing(events):  # type: ignore[type-var] # a generator, whose call is cancelled when it closes
            for event in events:
                if event.get("event") == "data":
                    self._written = True
                patience.hear(event)
                yield event
