"""A connection to the master, which one call uses at a time."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from engine import forks
from engine.errors import RemoteProtocolError
from engine.net import sockets
from engine.net.connect import connect
from engine.rpc.calls import read_answer, write_call
from engine.rpc.framing import Splitter

GENERATION = "0.3.13"
"""Whose forms are written: the newest that the codec knows, which masters of ours and of 0.3.13 take."""

CONNECT_SECONDS = 2.0
"""For the master to take a connection."""

CALL_SECONDS = 8.0
"""For an answer. The pings of the background end the wait sooner where the master is gone."""

RECEIVE_BYTES = 1 << 18
"""What is taken from a connection at a time."""

INTRODUCTION = 0
"""The number of the call with which a connection begins, whose answer nobody waits for."""


class CallRefused(Exception):
    """The master is there, and did not take the call: it does not know it, or not in this form."""


class Line:
    """A connection, used by one thread at a time; ``close`` may come from another."""

    def __init__(self, host: str, port: int, name: str, introduction: bytes) -> None:
        """``introduction`` goes before the first call. Raises ``OSError``."""
        self.sock = forks.hold(connect(host, port, timeout=CONNECT_SECONDS))
        try:
            sockets.tune(self.sock)
            sockets.set_timeouts(self.sock, receive=CALL_SECONDS, send=CALL_SECONDS)
        except BaseException:
            self.sock.close()
            raise
        self._splitter = Splitter(peer=name, answers=True)
        self._sequence = INTRODUCTION
        self._introduction = introduction
        self._name = name

    def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """One call. Raises ``OSError``, ``RemoteProtocolError`` and ``CallRefused``."""
        sequence = self._sequence = self._sequence + 1 & 0xFFFFFFFF
        introduction, self._introduction = self._introduction, b""
        self.sock.sendall(introduction + write_call(sequence, GENERATION, method, args))
        while True:
            data = self.sock.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            for answer in self._splitter.answers(data):
                if answer.sequence != sequence:
                    if answer.sequence == INTRODUCTION:
                        continue
                    raise RemoteProtocolError(peer=self._name, detail="an answer to a call that nobody made")
                try:
                    return read_answer(answer, GENERATION, method, self._name)
                except RemoteProtocolError as error:
                    if answer.error:
                        raise CallRefused(error.fields["detail"]) from None
                    raise

    def close(self) -> None:
        """Break off what it is doing. Twice is harmless."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
