"""The event loop of a master: uvloop's where it is installed, else Python's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a master to its end. A call costs two to three times as much on Python's own loop."""
    try:
        from uvloop import run as start  # noqa: PLC0415 - an extra
    except ImportError:
        start = asyncio.run
    start(main)  # not within the handler: each error of the master would be told as one that came of the missing extra
