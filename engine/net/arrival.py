"""Waiting for many bytes at once, so that a thread is woken once for them and not for each bundle of packets.

A blocking ``recv`` with ``MSG_WAITALL`` returns when all has come, but the kernel wakes its thread for each bundle that
does, to copy that, and lets it sleep again: some 25 times for a MiB at 200 Mbit/s. With SO_RCVLOWAT the socket is not
readable before so much is there, or the peer closed, or its window is nearly used up (socket(7), tcp(7)). That holds
for ``poll`` alone: a ``recv`` that has taken a part would wait for a rest that is below the mark for ever.

Where bytes come about as fast as they are copied, its thread hardly sleeps, and what costs is Python: each call gives
the interpreter's lock away and wants it back, which the other connections want, too. There all that is asked for is
one call.
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AT_ONCE = 1 << 18
"""Bytes that are waited for at most: the kernel must have room for them, and who hashes and writes wants work, too."""

LEAST = 1 << 16
"""Fewer are received as they come: a message costs less than the calls that would save some wake-ups."""

QUICK = 500e6
"""Bytes per second from which on a connection counts as quick: a MiB is then a matter of two milliseconds."""

STILL_QUICK = 200e6
"""And below which it no longer does: many that share a link, or an interpreter, each have little of it. One that has a
link of 1 Gbit/s to itself is slower."""


class Arrival:
    """Receives from one blocking TCP socket, for one thread."""

    def __init__(self, sock: socket.socket, timeout: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """``timeout`` is the socket's own for receiving, in seconds; ``clock`` tells seconds, and never goes back."""
        self._sock = sock
        self._clock = clock
        self._quick = False
        self._milliseconds = max(1, int(timeout * 1000))
        self._mark = 1
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def receive(self, views: Sequence[memoryview]) -> int:
        """Bytes received into ``views``, as ``recvmsg_into``: 0 once the peer has closed.

        All that fits, unless more than ``AT_ONCE`` does and they come slowly, the peer closed, or the timeout was over.
        Raises ``OSError``, ``BlockingIOError`` when nothing came in time.
        """
        wanted = sum(len(view) for view in views)
        if wanted < LEAST:
            self._wait_for(1)
            return self._sock.recvmsg_into(views, 0, socket.MSG_WAITALL)[0]
        began = self._clock()
        if self._quick:
            self._wait_for(1)
            count = self._sock.recvmsg_into(views, 0, socket.MSG_WAITALL)[0]
        else:
            self._wait_for(min(wanted, AT_ONCE))
            self._poll.poll(self._milliseconds)  # what has come by then is taken, whatever it is
            count = self._sock.recvmsg_into(views, 0, socket.MSG_DONTWAIT)[0]
        self._quick = count >= (STILL_QUICK if self._quick else QUICK) * (self._clock() - began)
        return count

    def _wait_for(self, count: int) -> None:
        if count != self._mark:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self._mark = count
