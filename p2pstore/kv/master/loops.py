"""The event loop of a master: uvloop's where it is installed, else Python's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any


def new() -> asyncio.AbstractEventLoop:
    """A loop that is not this thread's."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - an extra

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a master to its end. A call costs two to three times as much on Python's own loop."""
    start: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - an extra

        start = uvloop.run
    start(main)  # not within the handler: each error of the master would be told as one that came of the missing extra
