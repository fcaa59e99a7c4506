from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from engine.protocol.segment import SegmentDescriptor
from engine.serving.handshake_server import HandshakeServer
from p2pstore.inspect.probing import ask, on_loopback, probe
from p2pstore.inspect.staleness import ProbeAnswer, ProbeTarget
from tests.ports import closed_port, reserved_port


@pytest.fixture
def alive() -> Iterator[ProbeTarget]:
    server = HandshakeServer(lambda: SegmentDescriptor("x", 1), "127.0.0.1")
    server.start()
    yield ProbeTarget("127.0.0.1", server.port)
    server.close()


@pytest.fixture
def refusing() -> ProbeTarget:
    return ProbeTarget("127.0.0.1", closed_port())


@pytest.fixture
def silent() -> Iterator[ProbeTarget]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield ProbeTarget("127.0.0.1", server.getsockname()[1])


@pytest.fixture
def strange() -> Iterator[ProbeTarget]:
    """Says something else, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(100)
                accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield ProbeTarget("127.0.0.1", server.getsockname()[1])
        thread.join(60)


async def test_what_endpoints_answer(
    alive: ProbeTarget, refusing: ProbeTarget, silent: ProbeTarget, strange: ProbeTarget
) -> None:
    found = await probe([alive, refusing, strange, alive], loopback=True, timeout=60)
    assert found == {alive: ProbeAnswer.ALIVE, refusing: ProbeAnswer.REFUSED, strange: ProbeAnswer.STRANGE}
    assert await probe([silent], loopback=True, timeout=0.5) == {silent: ProbeAnswer.SILENT}


def test_a_plain_endpoint_needs_only_to_accept(silent: ProbeTarget, refusing: ProbeTarget) -> None:
    assert ask(ProbeTarget(silent.host, silent.port, plain=True), True) is ProbeAnswer.ALIVE
    assert ask(ProbeTarget(refusing.host, refusing.port, plain=True), True) is ProbeAnswer.REFUSED


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "127.9.9.9"])
def test_the_loopback_of_another_machine_is_not_ours(host: str) -> None:
    assert ask(ProbeTarget(host, 1), False) is ProbeAnswer.NOT_ASKED


def test_a_name_that_is_none_does_not_raise() -> None:
    assert ask(ProbeTarget("a" * 64 + ".invalid", 1), True) is ProbeAnswer.SILENT
    assert ask(ProbeTarget("no-such-host.invalid", 1), True) is ProbeAnswer.SILENT


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
    gone = ProbeTarget("127.0.0.1", reserved_port())
    servers: list[HandshakeServer] = []

    def once(endpoint: ProbeTarget, loopback: bool, timeout: float) -> ProbeAnswer:
        if servers:
            return ask(endpoint, loopback, timeout)
        server = HandshakeServer(lambda: SegmentDescriptor("x", 1), "127.0.0.1", gone.port)
        server.start()
        servers.append(server)
        return ProbeAnswer.REFUSED

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("p2pstore.inspect.probing.ask", once)
        assert await probe([gone], loopback=True, attempts=2) == {gone: ProbeAnswer.ALIVE}
    servers[0].close()
