"""Tensors that come one after the other to whoever iterates, brought by a thread that ends with the iteration."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from p2pstore.pull.crew import start
from p2pstore.pull.tensor_outlet import Outlet

CLOSE_SECONDS = 10.0
"""For the get to end when nobody wants more."""

log = logging.getLogger(__name__)


def streamed(what: str, outlet: Outlet, bring: Callable[[], None]) -> Iterator[tuple[str, Any]]:
    """What ``bring``, in a thread of its own, puts into ``outlet``; that it ends, and how, is heard there.

    ``what`` is the thread's name. ``bring`` is called when the first is asked for. What it raises is raised here.
    """

    def run() -> None:
        fault: BaseException | None = None
        try:
            bring()
        except BaseException as error:  # noqa: BLE001 - whoever takes them hears of it
            fault = error
        outlet.end(fault)

    thread = threading.Thread(target=run, name=what, daemon=True)
    start(thread)
    try:
        yield from outlet.items(thread.is_alive)
    finally:
        outlet.close()
        thread.join(CLOSE_SECONDS)
        if thread.is_alive():
            log.warning("%s: the get has not ended within %g s", what, CLOSE_SECONDS)
