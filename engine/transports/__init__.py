"""The transports: siblings behind the one small interface of ``engine.transports.base``.

Another package adds one with an entry point of the group ``mooncake.transports``: its name is the transport's, its
object a ``Transport`` class that can be made without arguments.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from engine.errors import TransportUnavailable
from engine.transports.base import Channel, PeerAddress, Sink, Transport
from engine.transports.local import LocalTransport
from engine.transports.mock import MockTransport
from engine.transports.rdma.reader.transport import RdmaTransport
from engine.transports.tcp import TcpTransport

__all__ = ["GROUP", "Channel", "PeerAddress", "Sink", "Transport", "transport", "transport_names"]

GROUP = "mooncake.transports"
"""The entry points' group."""

_OURS: dict[str, type[Transport]] = {
    each.name: each for each in (TcpTransport, LocalTransport, MockTransport, RdmaTransport)
}


def transport(name: str) -> Transport:
    """A new transport of this name, with its defaults. Raises ``TransportUnavailable``."""
    cls = _OURS.get(name)
    if cls is not None:
        return cls()
    for entry in entry_points(group=GROUP, name=name):
        try:
            found = entry.load()()
        except Exception as error:
            raise TransportUnavailable(transport=name, detail=f"{entry.value}: {error}") from error
        if not isinstance(found, Transport):
            raise TransportUnavailable(transport=name, detail=f"{entry.value} is no Transport")
        return found
    raise TransportUnavailable(transport=name, detail=f"there are {', '.join(transport_names())}")


def transport_names() -> list[str]:
    """All names that ``transport`` knows."""
    return sorted(_OURS.keys() | {entry.name for entry in entry_points(group=GROUP)})
