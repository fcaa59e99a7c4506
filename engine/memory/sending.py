"""Sending part of an open file over a socket, whatever the file system can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.files.system import system
from engine.memory.reading import read_some

if TYPE_CHECKING:
    import socket

MAX_SENDFILE = 1 << 30
"""Bytes asked of one ``sendfile``; the kernel's own limit is 2 GiB less a page."""


SEND_BYTES = 256 * 1024
"""Bytes that are read and sent at once where there is no ``sendfile``."""


def send_file(sock: socket.socket, fd: int, at: int, count: int) -> int:
    """Send bytes of a file; how many, 0 at the file's end. An ``OSError`` is the socket's, ``Unreadable`` the file's.

    ``sendfile`` does not say whose its error is, and some file systems have none: then bytes are read and sent, which
    shows whose fault it was, if it was one. So they are where it sends none, and calls that the file's end.
    """
    try:
        sent = system.sendfile(sock.fileno(), fd, at, min(count, MAX_SENDFILE))
    except (BlockingIOError, ConnectionError):
        raise
    except OSError as error:
        return _read_and_send(sock, fd, at, count, error)
    return sent or _read_and_send(sock, fd, at, count, None)


def _read_and_send(sock: socket.socket, fd: int, at: int, count: int, before: OSError | None) -> int:
    """As ``send_file``. ``before`` is what ``sendfile`` said: it stands where the socket takes nothing so either."""
    view = memoryview(bytearray(min(count, SEND_BYTES)))
    found = read_some(fd, view, at)
    try:
        return sock.send(view[:found]) if found else 0
    except BlockingIOError:
        raise
    except OSError:
        if before is None:
            raise
        raise before from None
