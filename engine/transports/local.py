"""Reads from a peer on this host: it hands over the file's descriptor, and we read the file ourselves.

The bytes still pass through the sink, so they are verified as if they had come from afar. Where the file system can, a
sink shares the file's blocks instead.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from engine import forks
from engine.errors import PeerStalled, PeerUnreachable, RangeRefused, RemoteProtocolError, TransportUnavailable
from engine.memory.reading import TooShort, Unreadable, read_range
from engine.net import sockets
from engine.net.host_id import host_id
from engine.protocol.local_socket import (
    MAX_PACKET,
    MEMORY,
    DescriptorRequest,
    Grant,
    peer_uid,
    short_path,
    unpack_answer,
)
from engine.transports.base import Channel, CloningSink, PeerAddress, Sink, Transport
from engine.transports.socket_channel import SocketChannel

STALL_TIMEOUT = 20.0
"""Seconds for the peer to answer."""

MAX_IN_FLIGHT = 64
"""Requests submitted and not received; each keeps descriptors in flight, which the kernel counts against the user."""


class LocalTransport(Transport):
    """Opens channels to peers whose files this process can be given."""

    name = "local"

    def __init__(self, *, stall_timeout: float = STALL_TIMEOUT) -> None:
        """In seconds."""
        self._stall_timeout = stall_timeout
        self._host_id = host_id()

    def usable(self, peer: PeerAddress) -> str:
        """See ``Transport.usable``."""
        if not peer.local_socket:
            return "the peer has no local socket"
        if not peer.host_id or peer.host_id != self._host_id:
            return "the peer is on another host"
        return ""

    def open(self, peer: PeerAddress) -> Channel:
        """See ``Transport.open``."""
        reason = self.usable(peer)
        if reason:
            raise TransportUnavailable(transport=self.name, detail=reason)
        sock = forks.hold(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        try:
            sockets.set_timeouts(sock, receive=self._stall_timeout, send=self._stall_timeout)
            with short_path(Path(peer.local_socket)) as name:
                sock.connect(name)
            ours = peer_uid(sock) == os.geteuid()
        except BlockingIOError:
            sock.close()
            raise PeerStalled(peer=peer.segment, seconds=self._stall_timeout) from None
        except PermissionError:
            ours = False
        except OSError as error:
            sock.close()
            raise PeerUnreachable(peer=peer.segment, detail=error.strerror or str(error)) from None
        if not ours:
            sock.close()
            raise TransportUnavailable(transport=self.name, detail="the peer belongs to another user")
        return LocalChannel(sock, peer.segment, stall_timeout=self._stall_timeout)


class LocalChannel(SocketChannel):
    """One connection to a peer's descriptor socket.

    ``receive`` raises ``TransportUnavailable`` too: for a range of the peer's memory, which has no descriptor.
    """

    max_in_flight = MAX_IN_FLIGHT

    def _request(self, address: int, length: int) -> bytes:
        return DescriptorRequest(address, length).pack()

    def _receive(self, sink: Sink, address: int, length: int) -> None:
        remaining = length
        more = True
        while more:
            grant, fd = self._next(address, length)
            try:
                if grant.length > remaining:
                    raise RemoteProtocolError(peer=self._peer, detail="descriptors for more than was asked")
                self._read(fd, grant, sink)
            finally:
                os.close(fd)
            remaining -= grant.length
            more = grant.more
        if remaining:
            raise RemoteProtocolError(peer=self._peer, detail="descriptors for less than was asked")

    def _next(self, address: int, length: int) -> tuple[Grant, int]:
        try:
            packet, fds, _, _ = socket.recv_fds(self._sock, MAX_PACKET + 1, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise self._failed(error) from None
        try:
            if not packet:
                raise self._gone("it closed the connection")
            answer = unpack_answer(packet, peer=self._peer)
            if answer == MEMORY:
                raise TransportUnavailable(transport="local", detail="the range lies in the peer's memory")
            if isinstance(answer, str):
                raise RangeRefused(peer=self._peer, address=address, length=length)
            if not fds:
                raise RemoteProtocolError(peer=self._peer, detail="an answer without a descriptor")
            return answer, fds.pop()
        finally:
            for fd in fds:
                os.close(fd)

    def _read(self, fd: int, grant: Grant, sink: Sink) -> None:
        at, end = grant.offset, grant.offset + grant.length
        cloner = sink if isinstance(sink, CloningSink) else None
        while cloner is not None and at < end and (count := cloner.clone(fd, at, end - at)):
            at += count

        def took(count: int) -> None:
            if self._closed:
                raise self._gone("the channel was closed")
            sink.filled(count)

        try:
            read_range(fd, at, end - at, sink.buffer, took)
        except TooShort:
            raise self._gone("its file became shorter") from None
        except Unreadable as error:
            raise self._gone(f"its file cannot be read: {error.strerror or error}") from None
