"""A server that accepts connections and says nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_server() -> Iterator[str]:
    """Its host and port."""
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel accepts for it
        yield f"127.0.0.1:{server.getsockname()[1]}"
