"""What gRPC calls the endpoints of an etcd: ``host:port`` as it is, and Unix sockets by paths of any length."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

from engine.protocol.local_socket import short_path

UNIX_PREFIX = "unix:"
"""What stands before a socket's path."""

MAX_PATH = 100
"""Bytes of a path that gRPC is given as it is; ``sun_path`` has 108."""


def unix_endpoint(path: str) -> str:
    """The endpoint of a Unix socket."""
    return UNIX_PREFIX + path


def target_of(endpoint: str, kept: ExitStack) -> str:
    """What to connect a channel to; a long path is reached through a descriptor, which ``kept`` closes.

    Raises ``OSError`` where the directory of such a path is not there.
    """
    if not endpoint.startswith(UNIX_PREFIX):
        return endpoint
    path = endpoint.removeprefix(UNIX_PREFIX)
    if len(os.fsencode(path)) > MAX_PATH:
        path = kept.enter_context(short_path(Path(path)))
    return UNIX_PREFIX + quote(os.fsencode(path))
