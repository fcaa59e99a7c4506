from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from engine.bench import socket_loop
from engine.bench.cases import Case, Operation
from engine.bench.memory import Memory
from engine.bench.socket_loop import SocketTarget, stream

LENGTH = 1 << 20


@pytest.fixture
def there() -> Memory:
    return Memory(LENGTH)


@pytest.fixture
def target(there: Memory) -> Iterator[SocketTarget]:
    made = SocketTarget(memoryview(there.map))
    yield made
    made.close()


def run(target: SocketTarget, here: Memory, operation: Operation, *, offset: int = 0) -> int:
    case = Case(operation, 65536, 4, 1)
    found = stream(("127.0.0.1", target.port), memoryview(here.map), case, offset, 0.1)
    assert found.bytes >= 65536
    assert found.bytes % 65536 == 0
    assert found.batches == found.bytes // (4 * 65536)
    assert found.seconds >= 0.1
    return found.bytes


def test_a_read_brings_the_targets_bytes(target: SocketTarget, there: Memory) -> None:
    here = Memory(LENGTH)
    there.fill(1, 0, LENGTH)
    moved = run(target, here, Operation.READ, offset=4 * 65536)
    assert here.first_difference(1, 4 * 65536, min(moved, 4 * 65536)) is None
    assert here.first_difference(0, 0, 4 * 65536) is None


def test_a_write_is_there_when_it_ends(target: SocketTarget, there: Memory) -> None:
    here = Memory(LENGTH)
    here.fill(2, 0, LENGTH)
    moved = run(target, here, Operation.WRITE, offset=4 * 65536)
    assert there.first_difference(2, 4 * 65536, min(moved, 4 * 65536)) is None
    assert there.first_difference(0, 0, 4 * 65536) is None


def test_mixed_goes_both_ways(target: SocketTarget, there: Memory) -> None:
    here = Memory(LENGTH)
    there.fill(3, 0, LENGTH)
    moved = run(target, here, Operation.MIXED)
    assert here.first_difference(3, 0, min(moved, 4 * 65536)) is None


@pytest.mark.parametrize("operation", [Operation.WRITE, Operation.MIXED])
def test_a_slow_target_has_all_of_it_when_it_ends(
    target: SocketTarget, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrived later would be taken for wrong bytes of the engine that writes there next."""
    real, whole = socket_loop._receive, list[bool]()

    def slow(sock: socket.socket, blocks: list[memoryview]) -> bool:
        if threading.current_thread().name != "bench:socket":
            return real(sock, blocks)
        time.sleep(0.1)
        whole.append(real(sock, blocks))
        return whole[-1]

    monkeypatch.setattr(socket_loop, "_receive", slow)
    run(target, Memory(LENGTH), operation)
    assert whole[-1] is False
    assert any(whole)


def test_a_target_that_does_not_end_is_not_listened_to_for_ever() -> None:
    def go_on(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as sock:
            while True:
                sock.sendall(bytes(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = threading.Thread(target=go_on, args=(listener,), daemon=True)
        target.start()
        with pytest.raises(ConnectionAbortedError, match="went on"):
            stream(listener.getsockname(), memoryview(bytearray(LENGTH)), Case(Operation.MIXED, 65536, 4, 1), 0, 0.0)
        target.join(60)
        assert not target.is_alive()


@pytest.mark.parametrize(
    "header",
    [(7, 0, 1, 1), (0, LENGTH, 1, 1), (0, 0, 0, 1), (0, 0, LENGTH, 2), (1, 0, 1, 0), (1, 2**64 - 1, 2**64 - 1, 1)],
    ids=str,
)
def test_what_does_not_fit_is_closed(target: SocketTarget, header: tuple[int, int, int, int]) -> None:
    with socket.create_connection(("127.0.0.1", target.port), timeout=60) as sock:
        sock.sendall(struct.pack("<BQQQ", *header))
        assert sock.recv(1) == b""


def test_after_close_nobody_is_let_in(target: SocketTarget) -> None:
    target.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", target.port), timeout=60).recv(1)
