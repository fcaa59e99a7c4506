"""The reader's side of the handshake: connects queue pairs, and asks for grants on the connection that stays open."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
import time
from typing import Any

from engine.errors import (
    PeerStalled,
    PeerUnreachable,
    RangeRefused,
    RemoteProtocolError,
    TransportUnavailable,
)
from engine.net import sockets
from engine.protocol.handshake import Decoder, Message, MessageType, encode
from engine.transports.rdma.setup import KEY, Extent, GrantRequest, Setup, read_grant

MAX_RELEASES = 64
"""Grants that are given back with the next request; more are given back at once."""


class Session:
    """One reader's connection to an owner's handshake port. Used by one thread; ``close`` may come from any.

    A peer of upstream's ends the connection after each answer: then every set-up has one of its own, ``kept`` stays
    false, and there are no grants.
    """

    def __init__(
        self, host: str, port: int, peer: str, *, connect_timeout: float, answer_timeout: float, key: str = ""
    ) -> None:
        """Connects when it is first used; both times are seconds. ``peer`` is named in errors, and shown ``key``."""
        self._key = key
        self.peer = peer
        self.kept = False
        self._at = host, port
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._numbers = itertools.count(1)
        self._over: list[int] = []

    def connect(self, ours: Setup) -> Setup:
        """Exchange set-ups; the peer's. Raises ``TransportUnavailable`` where it rejects ours, and ``RemoteError``."""
        shown = {KEY: self._key} if self._key else {}
        theirs = Setup.from_json(self._exchange(ours.to_json() | shown), peer=self.peer)
        self.kept = theirs.session
        if not self.kept:
            self._hang_up()
        if theirs.reject:
            raise TransportUnavailable(transport="rdma", detail=f"{self.peer} says: {theirs.reject}")
        if len(theirs.numbers) != len(ours.numbers):
            raise RemoteProtocolError(peer=self.peer, detail="another number of queue pairs than was asked for")
        return theirs

    def grant(self, address: int, length: int) -> tuple[int, list[Extent]]:
        """The number of a grant of the range, and its extents.

        Raises ``RangeRefused``, ``TransportUnavailable`` (the peer cannot register it) and other ``RemoteError``.
        """
        ask = GrantRequest(next(self._numbers), address, length, tuple(self._over))
        self._over.clear()
        body = self._exchange(ask.to_json())
        extents, reason = read_grant(body, ask, peer=self.peer)
        if reason and body.get("fault"):
            raise TransportUnavailable(transport="rdma", detail=f"{self.peer} says: {reason}")
        if reason:
            raise RangeRefused(peer=self.peer, address=address, length=length)
        return ask.id, extents

    def release(self, number: int) -> None:
        """A grant is over; the peer is told with the next request, or soon. Raises nothing."""
        self._over.append(number)
        if len(self._over) >= MAX_RELEASES:
            ask = GrantRequest(0, 0, 0, tuple(self._over))
            self._over.clear()
            with contextlib.suppress(OSError):
                if self._sock is not None:
                    self._sock.sendall(encode(Message(MessageType.CONNECTION, ask.to_json())))

    @property
    def fd(self) -> int:
        """The connection's descriptor, which becomes readable when the peer is gone; -1 where there is none."""
        sock = self._sock
        return sock.fileno() if sock is not None else -1

    @property
    def gone(self) -> bool:
        """Whether the peer has ended the session."""
        sock = self._sock
        if not self.kept:
            return False
        if sock is None:
            return True
        try:
            watch = select.poll()  # select(2) takes no descriptor from 1024 on
            watch.register(sock, select.POLLIN)
            return bool(watch.poll(0)) and not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except (OSError, ValueError):
            return True

    def over(self, detail: str) -> PeerUnreachable:
        """What ended it, to be raised: ``close``, which is no fault of the peer's, or else ``detail``."""
        return PeerUnreachable(peer=self.peer, detail="the channel was closed" if self._closed else detail)

    def close(self) -> None:
        """End the session; a thread that waits for an answer fails. Twice is harmless."""
        with self._lock:
            self._closed = True
            sock = self._sock
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def discard(self) -> None:
        """Close the descriptor too; for the thread that uses the session."""
        self.close()
        self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _exchange(self, body: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + self._answer_timeout
        decoder = Decoder(peer=self.peer)
        try:
            sock = self._connected()
            sock.sendall(encode(Message(MessageType.CONNECTION, body)))
            answer = None
            while answer is None:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = sock.recv(1 << 16)
                if not data:
                    raise self.over("it closed the handshake")
                answer = decoder.feed(data)
        except TimeoutError:
            raise PeerStalled(peer=self.peer, seconds=self._answer_timeout) from None
        except OSError as error:
            raise self.over(error.strerror or str(error)) from None
        if answer.type is not MessageType.CONNECTION:
            raise RemoteProtocolError(peer=self.peer, detail=f"an answer of type {answer.type.name}")
        return answer.body

    def _connected(self) -> socket.socket:
        if self._sock is not None:
            return self._sock
        if self.kept:
            raise self.over("its session has ended")
        sock = sockets.connected(*self._at, timeout=self._connect_timeout)
        with self._lock:
            if not self._closed:
                sockets.tune(sock)
                sock.settimeout(self._answer_timeout)
                self._sock = sock
                return sock
        sock.close()
        raise self.over("")
