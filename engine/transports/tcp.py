"""Reads over Mooncake's TCP data plane: a blocking socket of one thread, with requests of version 2 pipelined."""

from __future__ import annotations

import socket
from collections.abc import Callable

from engine.errors import PeerUnreachable, RangeRefused, RemoteError
from engine.net import addresses, sockets
from engine.net.arrival import Arrival
from engine.net.connect import Sources, connect
from engine.protocol import wire
from engine.protocol.exchange import ReplyReader, ReplyState
from engine.protocol.key import showing
from engine.transports.base import Channel, PeerAddress, Sink, Transport
from engine.transports.socket_channel import SocketChannel

CONNECT_TIMEOUT = 5.0
"""Seconds to connect."""

STALL_TIMEOUT = 20.0
"""Seconds without a byte after which a peer counts as stalled."""

MAX_IN_FLIGHT = 1024
"""Requests submitted and not received; more could fill both directions while nobody reads."""


class TcpTransport(Transport):
    """Opens channels to a peer's data port."""

    name = "tcp"

    def __init__(
        self,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
        sources: Sources | None = None,
    ) -> None:
        """Both in seconds. ``sources`` chooses the address to connect from; by default this machine's topology does."""
        self._sources = sources
        self._connect_timeout = connect_timeout
        self._stall_timeout = stall_timeout

    def usable(self, peer: PeerAddress) -> str:
        """See ``Transport.usable``."""
        return "" if peer.host and peer.data_port else "the peer has no data port"

    def open(self, peer: PeerAddress) -> Channel:
        """See ``Transport.open``."""
        return TcpChannel(
            lambda: self._connected(peer),
            addresses.join(peer.host, peer.data_port),  # not the segment's name, which has another port
            version=peer.protocol_version,
            stall_timeout=self._stall_timeout,
            opening=showing(peer.key),
        )

    def _connected(self, peer: PeerAddress) -> socket.socket:
        """A new connection. Raises ``PeerUnreachable``."""
        asked = addresses.join(peer.host, peer.data_port)
        try:
            sock = connect(peer.host, peer.data_port, timeout=self._connect_timeout, sources=self._sources)
        except TimeoutError:
            detail = f"no answer in {self._connect_timeout:g} s"
            raise PeerUnreachable(peer=asked, detail=detail) from None
        except OSError as error:
            raise PeerUnreachable(peer=asked, detail=error.strerror or str(error)) from None
        try:
            sockets.tune(sock)
            sockets.set_timeouts(sock, receive=self._stall_timeout, send=self._stall_timeout)
        except OSError as error:
            sock.close()
            raise PeerUnreachable(peer=asked, detail=error.strerror or str(error)) from None
        return sock


class TcpChannel(SocketChannel):
    """One connection. ``version`` is the peer's protocol version; version 1 has no status before the bytes.

    Peers of version 1 are asked for one range at a time, whatever is submitted: upstream's of 0.3.9 close after each
    reply, and what was asked behind it would be lost. There the next one goes over a new connection.
    """

    streamed = True
    max_in_flight = MAX_IN_FLIGHT

    def __init__(
        self,
        connected: Callable[[], socket.socket],
        peer: str,
        *,
        version: int = wire.LATEST_VERSION,
        stall_timeout: float = STALL_TIMEOUT,
        opening: bytes = b"",
    ) -> None:
        """``connected`` makes a blocking socket, and raises ``PeerUnreachable``, as this does.

        ``opening`` goes before the first request of each.
        """
        super().__init__(connected(), peer, stall_timeout=stall_timeout)
        self._arrival = Arrival(self._sock, stall_timeout)
        self._connected = connected
        self._opening = self._unsaid = opening
        self._version = min(version, wire.LATEST_VERSION)
        self._reply = ReplyReader(self._version, peer=peer)
        self._alone = self._version < wire.LATEST_VERSION
        self._asked = False
        """Of version 1: whether the request was sent whose reply is received next."""
        self._replies = 0
        """Of version 1: that came over this connection."""

    def _request(self, address: int, length: int) -> bytes:
        if self._alone:
            if self._submitted or self._replies:
                return b""  # its turn comes
            self._asked = True
        return self._packed(address, length)

    def _packed(self, address: int, length: int) -> bytes:
        opening, self._unsaid = self._unsaid, b""
        return opening + wire.pack_request(address, length, version=self._version)

    def _receive(self, sink: Sink, address: int, length: int) -> None:
        if self._alone:
            self._receive_alone(sink, address, length)
        else:
            self._receive_reply(sink, address, length)

    def _receive_alone(self, sink: Sink, address: int, length: int) -> None:
        """Ask for a range, unless that was done, and receive it."""
        if self._replies and not self._receive_another(sink, address, length):
            self._reconnect()
        if not self._replies:
            if not self._asked:
                self._send(self._packed(address, length))
            self._asked = False
            self._receive_reply(sink, address, length)
        self._replies += 1

    def _receive_another(self, sink: Sink, address: int, length: int) -> bool:
        """The same over a connection that was used before. False where the peer had closed it."""
        try:
            self._send(self._packed(address, length))
            self._receive_reply(sink, address, length)
        except (PeerUnreachable, RangeRefused):
            if self._closed or self._reply.state not in _NOTHING_CAME:
                raise
            return False
        return True

    def _send(self, data: bytes) -> None:
        self._reply.expect(1)  # so that it is known, whatever fails, that nothing has come
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise self._failed(error) from None

    def _reconnect(self) -> None:
        sock = self._connected()
        with self._lock:
            ended, self._sock = self._sock, sock
            self._arrival = Arrival(sock, self._stall_timeout)
            closed = self._closed
        ended.close()
        self._replies = 0
        self._unsaid = self._opening
        if closed:
            raise self._gone("")

    def _receive_reply(self, sink: Sink, address: int, length: int) -> None:
        reply = self._reply
        reply.expect(length)
        while reply.waits:
            # A status and the first bytes in one call: a small request costs one system call.
            if body := reply.received(self._fill(reply.into(sink.buffer(reply.left)))):
                sink.filled(body)
        if reply.state is not _DONE:
            raise self._broken(reply, address, length)

    def _broken(self, reply: ReplyReader, address: int, length: int) -> RemoteError:
        """Why there are no bytes, or not all."""
        silent = reply.state is ReplyState.UNANSWERED and self._alone
        if reply.state is ReplyState.REFUSED or (silent and not self._closed):  # version 1 refuses by closing
            return RangeRefused(peer=self._peer, address=address, length=length)
        return self._gone(reply.closed_how)

    def _fill(self, views: list[memoryview]) -> int:
        """Bytes received into ``views``, 0 when the peer closed."""
        try:
            return self._arrival.receive(views)
        except OSError as error:
            raise self._failed(error) from None


_DONE = ReplyState.DONE
_NOTHING_CAME = (ReplyState.FIRST_BYTE, ReplyState.UNANSWERED)
