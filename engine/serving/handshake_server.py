"""The handshake server: tells peers what this segment is.

One thread for all clients, so that a silent one holds up nobody. One request a connection, as upstream has it: the
answer has the request's type, then our side is shut down, and the client closes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import time
from typing import TYPE_CHECKING, Any

from engine import forks
from engine.errors import RemoteProtocolError
from engine.net import addresses, sockets
from engine.net.last_use import LastUse
from engine.net.threads import Failure, Threads
from engine.protocol.handshake import Decoder, Message, MessageType, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.protocol.segment import SegmentDescriptor

CLIENT_TIMEOUT = 5.0
"""Seconds for a client to send its request and take the answer; upstream's receive timeout."""

MAX_CLIENTS = 256
"""Clients at a time; one more makes the oldest go."""

MAX_BUFFERED = 16 << 20
"""Bytes of requests and answers that are held at a time, over all clients; beyond it the oldest client goes."""

CLOSE_TIMEOUT = 2.0
"""Seconds in which ``close`` ends."""

_READ = 1 << 16

log = logging.getLogger(__name__)


class _Client:
    __slots__ = ("answer", "deadline", "decoder", "fd", "held", "peer", "sock")

    def __init__(self, sock: socket.socket, peer: str, deadline: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.decoder = Decoder(peer=peer)
        self.answer: memoryview | None = None
        self.held = 0
        self.deadline = deadline


class HandshakeServer:
    """Listens on ``host:port`` (0: any free port) from construction, and answers from ``start`` to ``close``.

    ``descriptor`` is called for each Metadata request. ``on_notify(name, text)`` gets what peers send as Notify.
    Both are called from the server's thread, and must not block.
    """

    def __init__(
        self,
        descriptor: Callable[[], SegmentDescriptor],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ports: range | None = None,
        on_notify: Callable[[str, str], None] | None = None,
        on_connection: Callable[[socket.socket, Message, str], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_connection(socket, request, peer)`` takes a Connection request over with its socket, or says False.

        Port 0 is one of ``ports`` where they are given; ``clock`` tells seconds, and never goes back.
        Raises ``UsageError`` when the address cannot be had.
        """
        self._descriptor = descriptor
        self._on_notify = on_notify
        self._on_connection = on_connection
        self._clock = clock
        self._listener = sockets.listen(host, port, among=ports)
        self.port: int = self._listener.getsockname()[1]
        self._clients: dict[int, _Client] = {}
        self._held = 0
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._threads = Threads()
        self._use = LastUse(self._give_back)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in the server's thread."""
        return self._threads.failures

    def start(self) -> None:
        """Begin to answer. Raises ``UsageError`` where no thread can be had."""
        self._threads.must_serve("handshake", self._serve, self._use)

    def close(self) -> None:
        """Stop accepting, drop all clients, end the thread. Twice is harmless."""
        if self._closing:
            return
        self._closing = True
        self._threads.stop()
        os.eventfd_write(self._wake, 1)
        self._threads.join(CLOSE_TIMEOUT)
        self._use.let_go()

    def _give_back(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._listener.close()
        os.close(self._wake)

    def _serve(self) -> bool:
        for key, _ in self._selector.select(self._sweep()):
            if self._closing:
                break
            if key.fileobj is self._listener:
                self._accept()
            elif key.data is not None:
                self._step(key.data)
        return not self._closing

    def _sweep(self) -> float | None:
        """Drop late clients; seconds until the next one is late."""
        now = self._clock()
        for client in [each for each in self._clients.values() if each.deadline <= now]:
            self._drop(client)
        return min((each.deadline - now for each in self._clients.values()), default=None)

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
            forks.hold(sock)
        except BlockingIOError:
            return
        except OSError as error:
            log.warning("cannot accept handshakes: %s", error.strerror)
            if self._clients:
                self._drop(next(iter(self._clients.values())))
            else:
                time.sleep(0.1)
            return
        if len(self._clients) >= MAX_CLIENTS:
            self._drop(next(iter(self._clients.values())))
        client = _Client(sock, addresses.join(address[0], address[1]), self._clock() + CLIENT_TIMEOUT)
        self._clients[client.fd] = client
        try:
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, client)
        except OSError as error:  # no room for another watched descriptor
            log.warning("cannot watch handshakes: %s", error.strerror)
            self._drop(client)

    def _step(self, client: _Client) -> None:
        try:
            if client.answer:
                self._send(client)
                return
            data = client.sock.recv(_READ)
            if not data:
                self._drop(client)
            elif client.answer is None:
                self._hold(client, len(data))
                message = client.decoder.feed(data)
                if message is not None and not self._hand_over(client, message):
                    client.answer = memoryview(encode(self._answer(message, client.peer)))
                    self._hold(client, len(client.answer))
                    self._send(client)
        except (BlockingIOError, InterruptedError):
            pass
        except (RemoteProtocolError, OSError) as error:
            log.info("handshake with %s ends: %s", client.peer, error)
            self._drop(client)
        except Exception as error:  # noqa: BLE001 - it is noted; no pause, since the client goes
            self._threads.note(f"handshake with {addresses.given(client.peer)[0]}", error)
            self._drop(client)

    def _hold(self, client: _Client, count: int) -> None:
        """Account for ``count`` bytes more, and make room for them."""
        client.held += count
        self._held += count
        while self._held > MAX_BUFFERED:
            oldest = next((each for each in self._clients.values() if each is not client and each.held), None)
            if oldest is None:
                return
            self._drop(oldest)

    def _send(self, client: _Client) -> None:
        if client.answer is None:
            return
        with contextlib.suppress(BlockingIOError):
            client.answer = client.answer[client.sock.send(client.answer) :]
        if client.answer:
            self._selector.modify(client.sock, selectors.EVENT_WRITE, client)
        else:
            client.sock.shutdown(socket.SHUT_WR)
            self._selector.modify(client.sock, selectors.EVENT_READ, client)

    def _hand_over(self, client: _Client, message: Message) -> bool:
        """Whether a request, with its socket, is now somebody else's."""
        if message.type is not MessageType.CONNECTION or self._on_connection is None:
            return False
        # Before it is handed over: its new owner may close it at once, and the descriptor be another's.
        self._forget(client)
        try:
            if self._on_connection(client.sock, message, client.peer):
                return True
        except BaseException:
            client.sock.close()
            raise
        self._clients[client.fd] = client
        self._held += client.held
        self._selector.register(client.sock, selectors.EVENT_READ, client)
        return False

    def _answer(self, message: Message, peer: str) -> Message:
        body: dict[str, Any]
        if message.type is MessageType.METADATA:
            body = self._descriptor().to_json()
        elif message.type is MessageType.PROBE:
            body = {"status": "success"}
        elif message.type is MessageType.NOTIFY:
            name, text = message.body.get("name"), message.body.get("notify_msg")
            if not isinstance(name, str) or not isinstance(text, str):
                raise RemoteProtocolError(peer=peer, detail="a notification without name or text")
            if self._on_notify is not None:
                self._on_notify(name, text)
            body = {"name": "", "notify_msg": "success"}
        else:
            body = {
                "local_nic_path": "",
                "peer_nic_path": "",
                "qp_num": [],
                "reply_msg": "this segment offers nothing over RDMA",
            }
        return Message(message.type, body, old_form=message.old_form)

    def _drop(self, client: _Client) -> None:
        if self._forget(client):
            client.sock.close()

    def _forget(self, client: _Client) -> bool:
        """Serve a client no more; whether it was served."""
        if self._clients.pop(client.fd, None) is None:
            return False
        self._held -= client.held
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.fd)
        return True
