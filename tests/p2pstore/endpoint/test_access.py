"""Whose a connection is, by the kernel's word; and the token."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from p2pstore.endpoint.access import (
    is_ours,
    read_token,
    shown,
    shows,
    uid_in,
    uid_of,
)
from p2pstore.errors import StorageError, UsageError


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("listening", ["", "mapped"])
def test_the_kernel_says_whose_a_connection_is(address: str, listening: str) -> None:
    """A server that listens on an IPv6 address takes IPv4, too, and shows it mapped or not."""
    family = socket.AF_INET6 if listening or ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            server.bind(("::" if listening else address, 0))
        except OSError:
            pytest.skip("needs IPv6")
        server.listen()
        with socket.create_connection((address, server.getsockname()[1])) as client:
            made, _ = server.accept()
            with made:
                theirs, ours = made.getpeername()[:2], made.getsockname()[:2]
                assert uid_of(theirs, ours) == os.geteuid()
        assert is_ours(os.geteuid())
        assert client.fileno() == -1


def test_a_connection_that_is_not_there_is_nobodys() -> None:
    assert uid_of(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    assert not is_ours(None)
    assert not is_ours(max(os.geteuid(), 1) + 1)
    assert is_ours(0)


def test_a_connection_that_its_user_closed_is_nobodys() -> None:
    """The kernel shows it as root's then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        made, _ = server.accept()
        with made:
            theirs, ours = made.getpeername(), made.getsockname()
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            client.close()
            assert uid_of(theirs, ours) is None


@pytest.mark.skipif(sys.byteorder != "little", reason="the text is of such a machine")
def test_a_table() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 1 1\n"
        "   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2 1\n"
        "   2: 0100007F:C351 0100007F:1F90 05 00000000:00000000 00:00000000 00000000     0        0 0 1\n"
        "garbage\n"
    )
    assert uid_in(table, shown("127.0.0.1", 50000), shown("127.0.0.1", 8080)) == 1000
    assert uid_in(table, shown("127.0.0.1", 50001), shown("127.0.0.1", 8080)) is None, "nobody has it open"
    assert uid_in(table, shown("127.0.0.1", 50002), shown("127.0.0.1", 8080)) is None
    assert shown("::1", 80) == "00000000000000000000000001000000:0050"


def test_the_token() -> None:
    assert shows("Bearer abc", "abc")
    assert shows("bearer  abc ", "abc")
    assert not shows("Bearer abd", "abc")
    assert not shows("abc", "abc")
    assert not shows("", "abc")
    assert not shows("Bearer ü", "abc")


def test_the_file_of_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(StorageError):
        read_token(file)
    for bad in ("", "short", "two words of some length", "ü" * 20, "x" * 5000):
        file.write_text(bad)
        with pytest.raises(UsageError):
            read_token(file)
    file.write_text("hf_0123456789abcdef\n")
    assert read_token(file) == "hf_0123456789abcdef"
