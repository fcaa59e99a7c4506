"""A client's name in a metadata server: with a port, as upstream's, so that no two clients of a host have the same.

Upstream's clients choose the port likewise where none was given, and hold it, though nothing is served there.
"""

from __future__ import annotations

import errno
import random
import socket

from engine import forks
from engine.errors import PortTaken, UsageError
from engine.metadata.handshake import URL as P2PHANDSHAKE
from engine.net import addresses
from engine.net.addresses import given_place

PORTS = range(12300, 14301)
"""From which the port of a name is taken."""


class OwnName:
    """``text`` is the name, until ``close``. Raises ``UsageError``; ``PortTaken`` where no port is free."""

    def __init__(self, hostname: str, metadata: str) -> None:
        self.text = hostname
        self._held: socket.socket | None = None
        if not hostname or metadata.strip() == P2PHANDSHAKE:
            return
        host, port = given_place(hostname)
        if not port:
            self._held = _free(host)
            self.text = addresses.join(host, self._held.getsockname()[1])

    def close(self) -> None:
        """Give the name up. Twice is harmless."""
        if self._held is not None:
            self._held.close()


def _free(host: str) -> socket.socket:
    ports = random.sample(PORTS, len(PORTS))
    for port in ports:
        try:
            return _bound(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # the next port would be refused, too
                raise UsageError(detail=f"no port can be held for the name {host!r}: {error.strerror}") from None
    raise PortTaken(address=addresses.join(host, PORTS.start), detail=f"none of the ports up to {PORTS[-1]} is free")


def _bound(port: int) -> socket.socket:
    """A socket that has this port, and does not listen: nobody can connect to it."""
    try:
        held = socket.socket(socket.AF_INET)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        held = socket.socket(socket.AF_INET6)  # this host has nothing else
    try:
        held.bind(("", port))
        return forks.hold(held)
    except BaseException:
        held.close()
        raise
