"""A Unix socket with no room for one more: whoever does not wait is refused, as if it were busy for good."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from p2pstore.agent.home import socket_address


@contextlib.contextmanager
def full_socket(path: Path) -> Iterator[tuple[socket.socket, contextlib.ExitStack]]:
    """One that listens there and accepts nobody, and what lets go of those who wait."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket(socket.AF_UNIX))
        with socket_address(path) as address:
            listener.bind(address)
            listener.listen(0)
            others = held.enter_context(contextlib.ExitStack())
            while True:
                other = others.enter_context(socket.socket(socket.AF_UNIX))
                other.setblocking(False)
                try:
                    other.connect(address)
                except BlockingIOError:
                    break
        yield listener, others
