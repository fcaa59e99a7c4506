"""What the servers and clients share about sockets: listening, timeouts, and settings that were measured to matter."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import struct

from engine import forks
from engine.errors import NoSuchAddress, PortForbidden, PortTaken, UsageError
from engine.net import addresses

BACKLOG = 1024
"""Connections that the kernel completes before we accept them."""

LOOPBACK_CONGESTION = (b"reno", b"cubic")
"""Tried in this order where both ends are one host.

A bbr default paces packets as if there were a network: on loopback that costs a tenth to a third of the throughput.
"""

_TIMEVAL = struct.Struct("ll")


def listen(host: str, port: int, *, among: range | None = None) -> socket.socket:
    """A non-blocking listener; an IPv6 one takes IPv4 too. Raises ``UsageError`` where it cannot be had.

    ``NoSuchAddress`` where this host has no such address or name, which may be for the moment only.

    Port 0 is any free one, or any free one of ``among``.
    """
    if port or among is None:
        return _listen(host, port)
    for candidate in random.sample(among, len(among)):
        with contextlib.suppress(UsageError):
            return _listen(host, candidate)
    raise UsageError(detail=f"no port of {host} between {among.start} and {among.stop - 1} can be had")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = forks.hold(socket.socket(family, socket.SOCK_STREAM))
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except (socket.gaierror, UnicodeError):
        problem = "no interface of this host and no host has this name"
        raise NoSuchAddress(address=addresses.join(host, port), detail=problem) from None
    except OSError as error:
        if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            problem = "no interface of this host has this address"
            raise NoSuchAddress(address=addresses.join(host, port), detail=problem) from None
        place, detail = addresses.join(host, port), error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(address=place, detail=detail) from None
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise PortForbidden(address=place, detail=detail) from None
        raise UsageError(detail=f"cannot listen on {place}: {detail}") from None
    return listener


def connected(host: str, port: int, *, timeout: float, source: str = "") -> socket.socket:
    """As ``socket.create_connection``, from the address ``source`` if there is one. Raises ``OSError``.

    A child that is forked while this waits for the peer does not keep the connection.
    """
    fault: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            forks.hold(sock)
            sock.settimeout(timeout)
            if source:
                sock.bind((source, 0))
            sock.connect(address)
        except OSError as error:
            sock.close()
            fault = fault or error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise fault or OSError(errno.EADDRNOTAVAIL, "the name has no address")


def set_timeouts(sock: socket.socket, *, receive: float, send: float) -> None:
    """Kernel timeouts (seconds) of a blocking socket; a call that runs into one raises ``BlockingIOError``.

    Unlike Python's own timeouts they cost no extra ``poll`` a call, and hold for ``sendfile`` too.
    """
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(receive))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(send))


def tune(sock: socket.socket) -> None:
    """Settings of a connected TCP socket: no delay, and no pacing where the peer is this host."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not _same_host(sock):
        return
    for name in LOOPBACK_CONGESTION:
        # Not loaded, or not allowed to this user: the system's choice stays.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
            return


def _same_host(sock: socket.socket) -> bool:
    ours, theirs = sock.getsockname()[0], sock.getpeername()[0]
    if ours == theirs:
        return True
    return addresses.as_ip(theirs).is_loopback


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return _TIMEVAL.pack(whole, int((seconds - whole) * 1_000_000))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``: an address, or a name all of whose addresses are loopback."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return bool(found) and all(addresses.as_ip(str(entry[4][0])).is_loopback for entry in found)


def is_exposed(host: str) -> bool:
    """Whether others may reach what listens at ``host``.

    Raises ``NoSuchAddress`` for a name that is none: that is another fault than an open address, and is told first.
    """
    if is_loopback(host):
        return False
    if not addresses.is_ip(host):
        listen(host, 0).close()
    return True
