"""What a transport is: a way to read ranges of a peer's registered memory, in order, into a sink.

A ``Channel`` is one connection (or whatever stands for it) used by one thread. Requests are submitted first and
received later, in the same order, so that the next request is on its way while the last one's bytes still arrive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from engine.memory.region import Region


class Sink(Protocol):
    """Where the bytes of one request go. The channel asks for room, fills it, and says how much it filled."""

    def buffer(self, remaining: int) -> memoryview:
        """Writable room for the next bytes, at least 1 and at most ``remaining`` bytes long."""

    def filled(self, count: int) -> None:
        """The first ``count`` bytes of the last buffer now hold data. May raise; the channel is then closed."""


@runtime_checkable
class CloningSink(Sink, Protocol):
    """A sink that can share blocks with a file on the same file system, where a copy would only double them."""

    def clone(self, descriptor: int, offset: int, remaining: int) -> int:
        """Take the next bytes from ``offset`` of a file: how many; 0 where they must be copied. May raise."""


@runtime_checkable
class TakingSink(Sink, Protocol):
    """A sink that uses bytes where the channel has them, in memory that its devices write."""

    def take(self, data: memoryview) -> None:
        """The next bytes; ``data`` is valid during the call. May raise; the channel is then closed."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """How to reach one peer's segment.

    ``segment`` is upstream's segment name, ``host:rpc_port``; ``data_port`` is its TCP data port. ``host_id`` is the
    identity of its host and mount namespace (``engine.net.host_id``), ``local_socket`` the path of its descriptor
    socket there; both are empty where the peer has none. ``rdma`` are its RDMA devices, as
    ``engine.transports.rdma.addresses`` writes them. ``key`` is what the peer wants to be shown before it sends
    anything (``engine.protocol.key``); empty where it serves everybody.
    """

    segment: str
    host: str
    data_port: int
    protocol_version: int = 2
    host_id: str = ""
    local_socket: str = ""
    rdma: str = ""
    key: str = field(default="", repr=False)


class Channel(ABC):
    """An ordered pipeline of reads from one peer, owned by one thread."""

    in_place: ClassVar[bool] = False
    """Whether it makes use of the ``place`` that ``submit`` is told."""

    streamed: ClassVar[bool] = False
    """Whether the peer sends what is submitted at once, and has to wait until it is received."""

    @abstractmethod
    def submit(self, address: int, length: int, place: Region | None = None) -> None:
        """Ask for ``length`` bytes (at least 1) at ``address``. Raises ``RemoteError``.

        ``place`` is memory of that length in which the sink's buffers will lie one after the other. A channel that can
        have the bytes written there before they are received does so. The region is the channel's from the call on,
        even where that raises: it closes it when it needs it no more, at the latest when the channel is closed.
        """

    @abstractmethod
    def receive(self, sink: Sink) -> None:
        """Bring the oldest submitted range into ``sink``.

        Raises ``RangeRefused``, ``PeerStalled``, ``PeerUnreachable`` or ``RemoteProtocolError``. After any error the
        channel is closed and whatever was submitted is lost.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the connection back. Any thread may call it, at any time, twice too; a blocked ``receive`` fails."""


class Transport(ABC):
    """A kind of channel."""

    name: ClassVar[str]

    def missing(self) -> str:
        """Why this host cannot use it, whoever the peer is, in a few words; empty where it can."""
        return ""

    @abstractmethod
    def usable(self, peer: PeerAddress) -> str:
        """Why this transport cannot reach ``peer``, in a few words; empty when it may. Cheap; no I/O."""

    @abstractmethod
    def open(self, peer: PeerAddress) -> Channel:
        """Connect. Raises ``PeerUnreachable``, ``PeerStalled`` or ``TransportUnavailable``."""

    def close(self) -> None:  # noqa: B027 - most keep nothing
        """Let go of what is kept between channels, once they are closed; it opens no further ones."""


def pour(sink: Sink, data: memoryview) -> None:
    """Hand ``data`` to a sink: as it lies where the sink can use it so, and copied into its buffers where not."""
    if isinstance(sink, TakingSink):
        sink.take(data)
        return
    done = 0
    while done < len(data):
        view = sink.buffer(len(data) - done)
        count = len(view)
        view[:] = data[done : done + count]
        sink.filled(count)
        done += count
