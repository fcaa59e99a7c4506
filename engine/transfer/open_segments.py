"""The segments that an engine has open: one of each name, with one set of connections."""

from __future__ import annotations

import threading
from collections.abc import Callable

from engine.net.threads import Failure
from engine.transfer.remote_segment import Segment


class OpenSegments:
    """Segments by name. Thread-safe."""

    def __init__(self, make: Callable[[str], Segment], check: Callable[[], None]) -> None:
        """``make`` makes one; ``check`` raises once the engine's end has begun, so that none is opened then."""
        self._make = make
        self._check = check
        self._lock = threading.Lock()
        self._segments: dict[str, Segment] = {}

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in the threads that serve them."""
        with self._lock:
            peers = [segment.peer for segment in self._segments.values()]
        return tuple(failure for peer in peers for failure in peer.failures)

    def open(self, name: str) -> Segment:
        """The one of this name, its descriptor read just now. Raises as ``Segment``, and ``Segment.refresh``."""
        with self._lock:
            found = self._segments.get(name)
        if found is not None:
            found.refresh()
            return found
        made = self._make(name)  # outside the lock: it asks others
        with self._lock:
            self._check()
            return self._segments.setdefault(name, made)

    def close(self, segment: Segment) -> None:
        """Close its connections; transfers under way are cancelled."""
        with self._lock:
            if self._segments.get(segment.name) is segment:
                del self._segments[segment.name]
        segment.peer.close()

    def take_all(self) -> list[Segment]:
        """All of them, for their end; there are none afterwards."""
        with self._lock:
            segments = list(self._segments.values())
            self._segments.clear()
        return segments
