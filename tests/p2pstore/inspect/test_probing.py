from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from engine.protocol.segment import SegmentDescriptor
from engine.serving.handshake_server import HandshakeServer
from p2pstore.inspect.probing import ask, on_loopback, probe
from p2pstore.inspect.staleness import Answer, Endpoint
from tests.ports import closed_port, reserved_port


@pytest.fixture
def alive() -> Iterator[Endpoint]:
    server = HandshakeServer(lambda: SegmentDescriptor("x", 1), "127.0.0.1")
    server.start()
    yield Endpoint("127.0.0.1", server.port)
    server.close()


@pytest.fixture
def refusing() -> Endpoint:
    return Endpoint("127.0.0.1", closed_port())


@pytest.fixture
def silent() -> Iterator[Endpoint]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Endpoint("127.0.0.1", server.getsockname()[1])


@pytest.fixture
def strange() -> Iterator[Endpoint]:
    """Says something else, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(100)
                accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield Endpoint("127.0.0.1", server.getsockname()[1])
        thread.join(10)


async def test_what_endpoints_answer(alive: Endpoint, refusing: Endpoint, silent: Endpoint, strange: Endpoint) -> None:
    found = await probe([alive, refusing, silent, strange, alive], loopback=True, timeout=3)
    assert found == {
        alive: Answer.ALIVE, refusing: Answer.REFUSED, silent: Answer.SILENT, strange: Answer.STRANGE,
    }  # fmt: skip


def test_a_plain_endpoint_needs_only_to_accept(silent: Endpoint, refusing: Endpoint) -> None:
    assert ask(Endpoint(silent.host, silent.port, plain=True), True) is Answer.ALIVE
    assert ask(Endpoint(refusing.host, refusing.port, plain=True), True) is Answer.REFUSED


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "127.9.9.9"])
def test_the_loopback_of_another_machine_is_not_ours(host: str) -> None:
    assert ask(Endpoint(host, 1), False) is Answer.NOT_ASKED


def test_a_name_that_is_none_does_not_raise() -> None:
    assert ask(Endpoint("a" * 64 + ".invalid", 1), True) is Answer.SILENT
    assert ask(Endpoint("no-such-host.invalid", 1), True) is Answer.SILENT


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("etcd://127.0.0.1:2379", True),
        ("etcd://localhost:2379,[::1]:2379", True),
        ("memory://x", True),
        ("etcd://127.0.0.1:2379,10.0.0.1:2379", False),
        ("nonsense", False),
    ],
)
def test_which_stores_are_this_machines_alone(url: str, expected: bool) -> None:
    assert on_loopback(url) is expected


async def test_a_process_that_comes_back_at_the_second_attempt_lives() -> None:
    gone = Endpoint("127.0.0.1", reserved_port())
    servers: list[HandshakeServer] = []

    def once(endpoint: Endpoint, loopback: bool, timeout: float) -> Answer:
        if servers:
            return ask(endpoint, loopback, timeout)
        server = HandshakeServer(lambda: SegmentDescriptor("x", 1), "127.0.0.1", gone.port)
        server.start()
        servers.append(server)
        return Answer.REFUSED

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("p2pstore.inspect.probing.ask", once)
        assert await probe([gone], loopback=True, attempts=2) == {gone: Answer.ALIVE}
    servers[0].close()
