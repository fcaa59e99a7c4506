"""The client's side of the data plane for whole runs of slices: READ and WRITE, versions 1 and 2, pipelined.

Servers of upstream up to 0.3.9 speak version 1 and close each connection after one request. Nothing in their descriptor
tells, so a first connection tries it, and where it is so each slice has a connection of its own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from engine.errors import MooncakeError, RangeRefused, RemoteProtocolError
from engine.net import sockets
from engine.net.connect import connect
from engine.protocol import wire
from engine.protocol.exchange import ReplyReader, ReplyState, acknowledged, acknowledging
from engine.transfer.batch import Slice
from engine.transfer.endpoint import Endpoint

MAX_ROOMS = 256
"""Pieces of memory that are filled by one call; the system takes 1024."""

BOUNCE = 1 << 18
"""Bytes of the buffer through which reads reach a local file."""


class Connection:
    """One connection, used by one thread at a time. Only ``abort`` may come from another.

    To a peer that closes after each request it is several, one after the other.
    """

    def __init__(self, endpoint: Endpoint, *, connect_timeout: float, stall_timeout: float) -> None:
        """Connect; both times are seconds. Raises ``OSError``."""
        self.endpoint = endpoint
        self._connect_timeout = connect_timeout
        self._stall_timeout = stall_timeout
        self._lock = threading.Lock()
        self._closed = False
        self.aborted = False
        self._reply = ReplyReader(endpoint.version, peer=endpoint.segment)
        self._acknowledgement = memoryview(bytearray(acknowledging(0, 1, endpoint.version)[1]))
        self._sock = self._connected()
        self._one_each = False
        if endpoint.version < wire.LATEST_VERSION and endpoint.readable is not None:
            try:
                self._one_each = not self._stays(endpoint.readable)
            except BaseException:
                self._sock.close()
                raise

    def abort(self) -> None:
        """Break off whatever the connection is doing; its user gets an ``OSError``."""
        with self._lock:
            self.aborted = True
            if not self._closed:
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it. Twice is harmless."""
        with self._lock:
            self._closed = True
            self._sock.close()

    def carry(self, run: deque[Slice], moved: Callable[[Slice], None]) -> None:
        """Move slices of one opcode, in order; ``moved`` is told of each, which leaves ``run``.

        Raises ``OSError`` where another connection may help, ``RangeRefused`` or ``RemoteProtocolError`` for the first
        slice left in ``run``, and ``StorageError`` or ``SourceChanged`` for its local file. It must then be closed.
        """
        try:
            if self._one_each:
                self._carry_each(run, moved)
            elif run[0].transfer.opcode is wire.Opcode.READ:
                self._read(run, moved)
            else:
                self._write(run, moved)
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, f"no byte moved in {self._stall_timeout:g} s") from None

    def _connected(self) -> socket.socket:
        sock = connect(self.endpoint.host, self.endpoint.port, timeout=self._connect_timeout)
        try:
            sockets.tune(sock)
            sockets.set_timeouts(sock, receive=self._stall_timeout, send=self._stall_timeout)
        except BaseException:
            sock.close()
            raise
        return sock

    def _stays(self, address: int) -> bool:
        """Whether the peer answers a second request on a connection. Raises ``OSError``."""
        for number in (1, 2):
            try:
                self._sock.sendall(wire.pack_request(address, 1, version=self.endpoint.version))
                answered = bool(self._sock.recv(1))
            except BlockingIOError:
                raise TimeoutError(errno.ETIMEDOUT, f"no byte came in {self._stall_timeout:g} s") from None
            except ConnectionError:
                answered = False
            if not answered:
                return number == 1  # what does not answer at all is not one of these
        return True

    def _carry_each(self, run: deque[Slice], moved: Callable[[Slice], None]) -> None:
        """As ``carry``, with a connection for each slice."""
        while run:
            sock = self._connected()
            with self._lock:
                ended, self._sock = self._sock, sock
                broken_off = self.aborted or self._closed
            ended.close()
            if broken_off:
                raise ConnectionAbortedError(errno.ECONNABORTED, "the transfer was broken off")
            if run[0].transfer.opcode is wire.Opcode.READ:
                self._read(deque((run[0],)), moved)
            else:
                self._write_alone(run[0])
                moved(run[0])
            run.popleft()

    def _write_alone(self, piece: Slice) -> None:
        """A WRITE with nothing behind it. The peer closes once it has applied it; where it gave up, it resets."""
        self._send(piece)
        self._sock.shutdown(socket.SHUT_WR)
        if self._sock.recv(1):
            raise RemoteProtocolError(peer=self.endpoint.segment, detail="it answers a WRITE of version 1")

    def _read(self, run: deque[Slice], moved: Callable[[Slice], None]) -> None:
        version = self.endpoint.version
        self._sock.sendall(b"".join([wire.pack_request(each.address, each.length, version=version) for each in run]))
        while run:
            piece = run[0]
            view = piece.transfer.buffer.view(piece.offset, piece.length)
            if view is not None:
                with view:
                    self._receive(piece, view)
            elif (rooms := piece.transfer.buffer.rooms(piece.offset, piece.length)) is not None:
                self._receive_into_many(piece, rooms)
            else:
                self._receive_into_file(piece)
            run.popleft()
            moved(piece)

    def _receive(self, piece: Slice, view: memoryview) -> None:
        """The reply to one slice, its body straight into memory."""
        reply, done = self._reply, 0
        reply.expect(len(view))
        while reply.waits:
            done += reply.received(self._sock.recvmsg_into(reply.into(view[done:]), 0, socket.MSG_WAITALL)[0])
        if reply.state is not _DONE:
            self._broken(piece)

    def _receive_into_many(self, piece: Slice, rooms: list[memoryview]) -> None:
        """As ``_receive``, into several pieces of memory one after the other."""
        reply = self._reply
        reply.expect(piece.length)
        while reply.waits:
            *status, _ = reply.into(rooms[0])
            count = reply.received(self._sock.recvmsg_into([*status, *rooms[:MAX_ROOMS]], 0, socket.MSG_WAITALL)[0])
            while count and count >= len(rooms[0]):
                count -= len(rooms.pop(0))
            if count:
                rooms[0] = rooms[0][count:]
        if reply.state is not _DONE:
            self._broken(piece)

    def _receive_into_file(self, piece: Slice) -> None:
        reply, at = self._reply, piece.offset
        bounce = memoryview(bytearray(min(BOUNCE, piece.length)))
        reply.expect(piece.length)
        while reply.waits:
            room = bounce[: reply.left]
            count = reply.received(self._sock.recvmsg_into(reply.into(room), 0, socket.MSG_WAITALL)[0])
            if count:
                piece.transfer.buffer.write_from(at, room[:count])
                at += count
        if reply.state is not _DONE:
            self._broken(piece)

    def _write(self, run: deque[Slice], moved: Callable[[Slice], None]) -> None:
        broken: OSError | MooncakeError | None = None
        sent = 0
        try:
            for piece in run:
                self._send(piece)
                sent += 1
        except MooncakeError as error:  # our file failed; what was sent before it is still answered
            broken = error
        except OSError as error:
            # A peer that refuses answers and closes while we still send: what it said may be there to be read.
            broken = error
            sent += 1
            self._sock.setblocking(False)
        try:
            if self.endpoint.version >= wire.LATEST_VERSION:
                self._receive_statuses(run, min(sent, len(run)), moved)
            else:
                for _ in range(min(sent, len(run))):
                    self._receive(run[0], self._acknowledgement)
                    moved(run.popleft())
        except OSError:
            if broken is not None:
                raise broken from None
            raise
        if broken is not None:
            raise broken

    def _receive_statuses(self, run: deque[Slice], count: int, moved: Callable[[Slice], None]) -> None:
        """The answers to ``count`` WRITEs, as many in one call as come: each by itself would wake this thread."""
        room = memoryview(bytearray(count * wire.STATUS_LENGTH))
        came = 0  # bytes in ``room`` that are no whole status yet
        while room:
            more = self._sock.recv_into(room[came:], 0, socket.MSG_WAITALL)
            came += more
            good = acknowledged(room[:came])
            for _ in range(good):
                moved(run.popleft())
            room = room[good * wire.STATUS_LENGTH :]
            came -= good * wire.STATUS_LENGTH
            if came >= wire.STATUS_LENGTH or not more:
                self._refused(run[0], room[: min(came, wire.STATUS_LENGTH)])

    def _refused(self, piece: Slice, status: memoryview) -> NoReturn:
        """Another status came, or not all of one before the peer closed. Raises as ``_broken``."""
        reply = self._reply
        reply.expect(0)
        if status:
            reply.into(memoryview(b""))[0][: len(status)] = status
            reply.received(len(status))
        if reply.waits:
            reply.received(0)
        self._broken(piece)

    def _send(self, piece: Slice) -> None:
        version = self.endpoint.version
        header = wire.pack_request(piece.address, piece.length, opcode=wire.Opcode.WRITE, version=version)
        buffer, end = piece.transfer.buffer, piece.offset + piece.length
        at = piece.offset
        view = buffer.view(piece.offset, piece.length)
        if view is None:
            self._sock.sendall(header, socket.MSG_MORE)
        else:
            with view:
                at += max(0, self._send_first(header, view))
        while at < end:
            at += buffer.send(self._sock, at, end - at)
        if not self._one_each and (asks := acknowledging(piece.address, piece.length, version)[0]):
            self._sock.sendall(asks)

    def _send_first(self, header: bytes, view: memoryview) -> int:
        """Send the header, and bytes behind it in the same call; how many of those."""
        count = self._sock.sendmsg([header, view])
        if count < len(header):
            self._sock.sendall(header[count:])
            return 0
        return count - len(header)

    def _broken(self, piece: Slice) -> NoReturn:
        """Say why a slice was not answered in full."""
        reply = self._reply
        if reply.state is ReplyState.REFUSED:
            raise RangeRefused(peer=self.endpoint.segment, address=piece.address, length=piece.length)
        if reply.state is ReplyState.UNANSWERED:  # version 1 refuses a range so
            raise ConnectionResetError(errno.ECONNRESET, reply.closed_how)
        raise ConnectionAbortedError(errno.ECONNABORTED, reply.closed_how)


_DONE = ReplyState.DONE
