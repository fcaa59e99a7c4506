"""Which files this process has open."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def open_below(place: Path) -> int:
    """How many descriptors are of what lies there, or lay there: those of other tests come and go, and do not count."""
    inside, found = os.path.realpath(place), 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # it was that of the listing, or another thread's that is closed by now
            file = os.readlink(f"/proc/self/fd/{name}").removesuffix(" (deleted)")
            found += file == inside or file.startswith(f"{inside}/")
    return found
