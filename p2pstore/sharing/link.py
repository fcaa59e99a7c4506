"""A process's connection to another of the host. Nobody waits for the other to hear: what it does not yet is kept."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

from p2pstore.sharing.messages import Heard, Message

READ_BYTES = 1 << 16


class Link:
    """One's. Any thread says something; one hears.

    Were a thread that hears to wait until the other side takes what it says, both sides might: for ever.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._lock = threading.Lock()
        self._unsaid = bytearray()
        self._heard = Heard()

    def say(self, message: Message) -> None:
        """Tell the other side. One that has gone is found out where it is heard."""
        with self._lock:
            self._unsaid += message.pack()
            self._flush()

    def hear(self, seconds: float) -> list[Message] | None:
        """What it says within so long; None once it has gone. Raises ``ValueError`` for what is no message."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._unsaid else 0))
        events = poll.poll(seconds * 1000)
        if events and events[0][1] & select.POLLOUT:
            with self._lock:
                self._flush()
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._heard.feed(data) if data else None

    def close(self) -> None:
        """Say nothing more, and hear nothing: the other side sees it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _flush(self) -> None:
        try:
            while self._unsaid:
                del self._unsaid[: self._sock.send(self._unsaid)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsaid.clear()
