"""The driver that this process uses, loaded when it is first needed, and the pinned memory that goes with it."""

from __future__ import annotations

import threading

from engine import forks
from engine.cuda.bindings import Bindings, forked
from engine.cuda.driver import Driver
from engine.cuda.peers import Peers
from engine.cuda.pinned import PinnedPool

ARRIVING_BYTES = 960 << 20
"""Pinned memory for what comes to GPUs, in a process."""

LEAVING_BYTES = 64 << 20
"""Pinned memory for what goes out from GPUs. It is counted apart: what comes may wait for what goes, in one process."""


class Cuda:
    """A driver and the pinned memory that is copied through."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.peers = Peers(driver)
        self.arriving = PinnedPool(driver, ARRIVING_BYTES)
        self.leaving = PinnedPool(driver, LEAVING_BYTES)

    @property
    def pinned_bytes(self) -> int:
        """What is pinned now."""
        return self.arriving.pinned_bytes + self.leaving.pinned_bytes

    @property
    def most_pinned_bytes(self) -> int:
        """The most that was ever pinned."""
        return self.arriving.most_pinned_bytes + self.leaving.most_pinned_bytes

    def trim(self) -> None:
        """Give back pinned memory that nothing uses now."""
        self.arriving.trim()
        self.leaving.trim()


_lock = threading.Lock()
_loaded: Cuda | None = None
_lost = False
"""Whether this process was forked from one that has used CUDA."""


def cuda() -> Cuda:
    """CUDA in this process. Raises ``GpuUnavailable``, which says why not and what to do."""
    global _loaded  # noqa: PLW0603 - a library of the whole process
    with _lock:
        if _lost:
            raise forked()
        if _loaded is None:
            _loaded = Cuda(Bindings())
        return _loaded


def use(driver: Driver) -> Cuda:
    """Have this process use another driver: a test's fake."""
    global _loaded  # noqa: PLW0603 - see above
    with _lock:
        _loaded = Cuda(driver)
        return _loaded


def forget() -> None:
    """Load the driver anew when it is next needed."""
    global _loaded  # noqa: PLW0603 - see above
    with _lock:
        _loaded = None


def in_use() -> Cuda | None:
    """CUDA, if this process has used it here."""
    return _loaded


def _renew() -> None:
    global _lock, _loaded, _lost  # noqa: PLW0603 - see above
    _lost = _lost or _loaded is not None
    _lock, _loaded = threading.Lock(), None


forks.renew_at_fork(_renew)
