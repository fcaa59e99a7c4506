"""How many descriptors this process may have: servers need one for each client."""

from __future__ import annotations

import contextlib
import resource

MAX_OPEN_FILES = 65536
"""Descriptors of a server, where the hard limit allows."""


def allow_many_files() -> None:
    """Raise our own limit of descriptors: the usual one is for programs that call select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
