"""Addresses, listeners, kernel timeouts, and congestion control where both ends are one host."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from engine.errors import NoSuchAddress, PortForbidden, UsageError
from engine.net import sockets


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_listen_and_tune(host: str) -> None:
    if host == "::1" and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    with sockets.listen(host, 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match="cannot listen"):
            sockets.listen(host, port)
        with socket.create_connection((host, port)) as sock:
            sockets.tune(sock)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            chosen = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")
            assert chosen in sockets.LOOPBACK_CONGESTION
            sockets.set_timeouts(sock, receive=0.05, send=1)
            with pytest.raises(BlockingIOError):
                sock.recv(1)


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(
        NoSuchAddress, match=r"cannot listen on 192\.0\.2\.1:0: no interface of this host has this address"
    ):
        sockets.listen("192.0.2.1", 0)
    with pytest.raises(NoSuchAddress, match="no interface of this host and no host has this name"):
        sockets.listen("no.such.host.invalid", 0)


def test_a_port_that_is_not_for_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may listen on all of them, so the system's answer is made here."""

    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(PortForbidden, match=r"cannot listen on 127\.0\.0\.1:80: Permission denied") as caught:
        sockets.listen("127.0.0.1", 80)
    assert "1024" in caught.value.hint


def test_what_others_reach() -> None:
    assert sockets.is_exposed("0.0.0.0")
    assert sockets.is_exposed("10.255.255.1")
    assert not sockets.is_exposed("127.0.0.1")
    with pytest.raises(NoSuchAddress):
        sockets.is_exposed("999.1.1.1")
