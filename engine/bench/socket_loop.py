"""The baseline: what ``sendall`` and ``recv_into`` alone reach between the same two processes.

One connection for each thread, over which blocks stream without requests or answers, out of and into the same memory
as the engines use. So it is a bound for an engine with as many connections, which nothing that answers requests
reaches with small blocks, and which an engine with more connections can exceed.

A connection begins with a header::

    u8 operation (0 read, 1 write, 2 mixed, seen from the initiator) | u64 offset | u64 block size | u64 batch size

A read streams until the initiator closes. A write streams until the initiator shuts its side down; one byte from the
target then says that all has arrived. Mixed is a batch from the target and one from the initiator in turn; when the
initiator shuts its side down, the target closes, and all that it was sent has arrived.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator

from engine.bench.cases import MAX_BATCH_SIZE, MAX_THREADS, Case, Operation
from engine.bench.statistics import Measurement
from engine.net import sockets

TIMEOUT = 30.0
"""Seconds without progress after which either side gives up."""

CONNECT_TIMEOUT = 5.0

_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
_PAUSE = 0.1
_HEADER = struct.Struct("<BQQQ")
_OPERATIONS = (Operation.READ, Operation.WRITE, Operation.MIXED)
_DONE = b"\x01"

log = logging.getLogger(__name__)


class SocketTarget:
    """Takes part in the loop out of ``view``, from construction to ``close``."""

    def __init__(self, view: memoryview, host: str = "127.0.0.1") -> None:
        """Raises ``UsageError`` where ``host`` cannot be listened on."""
        self._view = view
        self._listener = sockets.listen(host, 0)
        self._listener.setblocking(True)
        self.port: int = self._listener.getsockname()[1]
        self._room = threading.Semaphore(MAX_THREADS)
        threading.Thread(target=self._accept, name="bench:accept", daemon=True).start()

    def close(self) -> None:
        """Accept no more. Connections end with their initiators."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in _PASSING:
                    return  # closed
                time.sleep(_PAUSE)
                continue
            if self._room.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(sock,), name="bench:socket", daemon=True).start()
            else:
                sock.close()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                _prepare(sock)
                header = bytearray(_HEADER.size)
                if sock.recv_into(header, 0, socket.MSG_WAITALL) < _HEADER.size:
                    return
                code, offset, block, batch = _HEADER.unpack(header)
                if code >= len(_OPERATIONS) or not (0 < batch <= MAX_BATCH_SIZE and block > 0):
                    return
                if offset + block * batch > len(self._view):
                    return
                _answer(sock, _OPERATIONS[code], _blocks(self._view, offset, block, batch))
        except OSError as error:
            # How every read ends: the initiator has closed.
            log.debug("a connection of the socket loop ended: %s", error)
        finally:
            self._room.release()


def _answer(sock: socket.socket, operation: Operation, blocks: list[memoryview]) -> None:
    while operation is Operation.READ:
        _send(sock, blocks)
    if operation is Operation.WRITE:
        while _receive(sock, blocks):
            pass
        sock.sendall(_DONE)
        return
    while True:
        _send(sock, blocks)
        if not _receive(sock, blocks):
            return


def stream(address: tuple[str, int], view: memoryview, case: Case, offset: int, seconds: float) -> Measurement:
    """Be the initiator on one connection for ``seconds``; the latencies are empty. Raises ``OSError``."""
    with socket.create_connection(address, timeout=CONNECT_TIMEOUT) as sock:
        _prepare(sock)
        code = _OPERATIONS.index(case.operation)
        sock.sendall(_HEADER.pack(code, offset, case.block_size, case.batch_size))
        blocks = _blocks(view, offset, case.block_size, case.batch_size)
        moved, began = 0, time.monotonic()
        until = began + seconds
        while time.monotonic() < until:
            # Single blocks, so that a round ends in time.
            for count in _steps(sock, case, blocks):
                moved += count
                if case.operation is not Operation.MIXED and time.monotonic() > until:
                    break
        if case.operation is Operation.WRITE:
            sock.shutdown(socket.SHUT_WR)
            if sock.recv(1) != _DONE:
                raise ConnectionAbortedError("the target did not receive all of it")
        if case.operation is Operation.MIXED:
            # What arrived after the return would land on what an engine writes to the same target next.
            sock.shutdown(socket.SHUT_WR)
            if _receive(sock, blocks):  # the one that was on its way
                moved += case.batch_bytes
            if sock.recv(1):
                raise ConnectionAbortedError("the target went on when it was told to end")
        return Measurement(time.monotonic() - began, moved // case.batch_bytes, moved)


def _steps(sock: socket.socket, case: Case, blocks: list[memoryview]) -> Iterator[int]:
    """Move a batch (of each direction), and say after each block how much that was."""
    if case.operation is not Operation.WRITE:
        for block in blocks:
            if not _receive(sock, [block]):
                raise ConnectionAbortedError("the target closed the connection")
            yield len(block)
    if case.operation is not Operation.READ:
        for block in blocks:
            sock.sendall(block)
            yield len(block)


def _blocks(view: memoryview, offset: int, block: int, batch: int) -> list[memoryview]:
    return [view[at : at + block] for at in range(offset, offset + block * batch, block)]


def _send(sock: socket.socket, blocks: list[memoryview]) -> None:
    for block in blocks:
        sock.sendall(block)


def _receive(sock: socket.socket, blocks: list[memoryview]) -> bool:
    """Fill the blocks; false where the peer has ended its side."""
    for block in blocks:
        done = 0
        while done < len(block):
            count = sock.recv_into(block[done:], 0, socket.MSG_WAITALL)
            if not count:
                return False
            done += count
    return True


def _prepare(sock: socket.socket) -> None:
    sockets.tune(sock)
    sockets.set_timeouts(sock, receive=TIMEOUT, send=TIMEOUT)
