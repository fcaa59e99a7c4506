"""Which of this process's own descriptors are connections to a given etcd, whoever made them: gRPC does not tell."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from engine.etcd.targets import UNIX_PREFIX
from engine.net import addresses


def connections_to(endpoints: Iterable[str]) -> list[int]:
    """The descriptors of connections to one of ``endpoints`` (``host:port`` or ``unix_endpoint``).

    Of a host that is a name the port alone is compared: to look a name up takes time, and may fail. Of a Unix socket it
    is the last part of the path, which has several forms.
    """
    wanted = set(map(_wanted, endpoints))
    found = []
    for descriptor, peer in _connections():
        if isinstance(peer, str):
            matches = ("unix", os.path.basename(peer)) in wanted
        else:
            matches = (_address(peer[0]), peer[1]) in wanted or ("", peer[1]) in wanted
        if matches:
            found.append(descriptor)
    return found


def _wanted(endpoint: str) -> tuple[str, int | str]:
    if endpoint.startswith(UNIX_PREFIX):
        return "unix", os.path.basename(endpoint)
    host, port = addresses.given(endpoint)
    return _address(host), port


def _connections() -> Iterator[tuple[int, Any]]:
    """Each connected stream: its descriptor, and its peer's address."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            sock = socket.socket(fileno=descriptor)
            try:
                if sock.type == socket.SOCK_STREAM and sock.family in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
                    yield descriptor, sock.getpeername()
            finally:
                sock.detach()


def _address(host: str) -> str:
    """An IP address in one form, IPv4 in IPv6 as IPv4; empty for a name."""
    return str(addresses.as_ip(host)) if addresses.is_ip(host) else ""
