"""Which descriptors are connections to a server, whatever else is open."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from engine.etcd.connections import connections_to
from engine.etcd.targets import unix_endpoint


@pytest.mark.parametrize(
    ("listening", "connecting", "endpoint"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "localhost"),
        ("::", "127.0.0.1", "127.0.0.1"),
        ("::1", "::1", "[::1]"),
    ],
)
def test_it_finds_those_and_no_others(listening: str, connecting: str, endpoint: str) -> None:
    family = socket.AF_INET6 if ":" in listening else socket.AF_INET
    try:
        server = socket.create_server((listening, 0), family=family, dualstack_ipv6=listening == "::")
    except (OSError, ValueError) as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server, socket.create_server(("127.0.0.1", 0)) as other:
        port = server.getsockname()[1]
        with socket.create_connection((connecting, port)) as ours, socket.create_connection(other.getsockname()):
            assert connections_to([f"{endpoint}:{port}"]) == [ours.fileno()]
            assert connections_to([f"192.0.2.1:{port}"]) == []
            assert connections_to([]) == []
            ours.getpeername()


def test_a_unix_socket_is_known_by_the_last_part_of_its_path(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as ours:
        server.bind(str(tmp_path / "etcd.sock"))
        server.listen()
        ours.connect(str(tmp_path / "etcd.sock"))
        assert connections_to([unix_endpoint("/another/form/etcd.sock")]) == [ours.fileno()]
        assert connections_to([unix_endpoint(str(tmp_path / "other.sock"))]) == []


def test_what_is_no_connection_is_passed_over() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(("127.0.0.1", 9))
        assert connections_to(["127.0.0.1:9"]) == []
