"""Connecting to a peer, over several network cards in turn where they reach it equally well."""

from __future__ import annotations

import socket
from typing import Protocol

from engine.net import sockets
from engine.topology.sources import SourceChoice


class Sources(Protocol):
    """Says which local address to bind next."""

    def next(self, peer: str) -> str:
        """The address for the next connection to ``peer`` (an IP address); empty: the kernel chooses."""

    def failed(self, peer: str, source: str) -> None:
        """``peer`` was not reached from ``source``."""


SOURCES: Sources = SourceChoice()
"""By this machine's topology; one for the process, so that all connections to a peer take turns."""


def connect(host: str, port: int, *, timeout: float, sources: Sources | None = None) -> socket.socket:
    """A connected TCP socket; ``timeout`` (seconds) is for each attempt. Raises ``OSError``.

    Where no answer comes to the bound address, as with a filter that wants answers on one card only, that address is
    left out from then on, and the kernel chooses.
    """
    sources = SOURCES if sources is None else sources
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    peer = str(found[0][4][0])
    source = sources.next(peer)
    if source:
        try:
            return sockets.connected(peer, port, timeout=timeout, source=source)
        except ConnectionRefusedError:
            # The peer answered: the way is good.
            raise
        except OSError:
            sources.failed(peer, source)
    return sockets.connected(host, port, timeout=timeout)
