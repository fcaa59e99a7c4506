"""Many bytes are waited for at once; whatever has come is received when no more will."""

from __future__ import annotations

import itertools
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engine.net.arrival import AT_ONCE, LEAST, QUICK, STILL_QUICK, Arrival

WAIT = 60.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection over loopback, both blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield one, other


def received(arrival: Arrival, room: int) -> bytes:
    buffer = bytearray(room)
    return bytes(buffer[: arrival.receive([memoryview(buffer)])])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)


def test_what_comes_in_pieces_is_received_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    data = bytes(range(256)) * (AT_ONCE // 256)

    def send() -> None:
        # What came before it is waited for may use up the window, and is then received by itself.
        until(lambda: one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == AT_ONCE)
        for start in range(0, len(data), LEAST // 2):
            other.sendall(data[start : start + LEAST // 2])
            time.sleep(0.005)

    sending = threading.Thread(target=send)
    sending.start()
    got = received(Arrival(one, WAIT), AT_ONCE)
    sending.join()
    assert got == data, "one call for eight pieces"


@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["quick", "slow"])
def test_of_a_quick_connection_all_is_one_call(pair: tuple[socket.socket, socket.socket], seconds: float) -> None:
    """Each look at the clock is so many seconds after the last; a slow one brings what is there once that is enough."""
    one, other = pair
    arrival = Arrival(one, WAIT, clock=itertools.count(0.0, seconds).__next__)
    data = bytes(range(256)) * (AT_ONCE // 256)
    parts = queue.SimpleQueue[bytes]()

    def send() -> None:
        while part := parts.get(timeout=WAIT):
            other.sendall(part)
            time.sleep(0.05)

    sending = threading.Thread(target=send)
    sending.start()
    parts.put(data)
    first = received(arrival, AT_ONCE)
    for part in (data, data, b""):
        parts.put(part)
    got = received(arrival, 2 * AT_ONCE)
    assert first + got == (3 * data)[: len(first) + len(got)]
    assert len(got) == 2 * AT_ONCE or seconds
    sending.join()


@pytest.mark.parametrize(
    ("rates", "quick"),
    [
        ([2 * QUICK, 2 * STILL_QUICK], True),
        ([2 * QUICK, STILL_QUICK / 2], False),
        ([QUICK / 2, 2 * STILL_QUICK], False),
    ],
    ids=["it shares now", "it is slow now", "it never was"],
)
def test_one_that_was_quick_is_so_while_it_has_a_share(
    pair: tuple[socket.socket, socket.socket], rates: list[float], quick: bool
) -> None:
    one, other = pair
    seconds = [0.0, LEAST / rates[0], 0.0, LEAST / rates[1]]
    arrival = Arrival(one, WAIT, clock=itertools.chain(seconds, itertools.repeat(0.0)).__next__)
    for _ in rates:
        other.sendall(bytes(LEAST))
        assert received(arrival, LEAST) == bytes(LEAST)
    data = bytes(range(256)) * (AT_ONCE // 256)
    other.sendall(data)
    rest = threading.Timer(0.1, other.sendall, [data])
    if quick:
        rest.start()
    got = received(arrival, 2 * AT_ONCE)
    assert (2 * data).startswith(got)
    assert (len(got) == 2 * AT_ONCE) is quick, "what is to come is waited for, or not"


@pytest.mark.parametrize("seconds", [0.0, 1.0, 0.0003], ids=["quick", "slow", "now and then quick"])
def test_every_byte_comes_whatever_is_asked_for(pair: tuple[socket.socket, socket.socket], seconds: float) -> None:
    one, other = pair
    data = bytes(range(251)) * 9000
    sending = threading.Thread(target=other.sendall, args=(data,))
    sending.start()
    arrival = Arrival(one, WAIT, clock=itertools.count(0.0, seconds).__next__)
    got = b""
    rooms = [1, LEAST - 1, LEAST, 3 * AT_ONCE, AT_ONCE + 4, 7, 2 * LEAST]
    while len(got) < len(data):
        got += received(arrival, min(rooms[0], len(data) - len(got)))
        rooms = rooms[1:] + rooms[:1]
    sending.join()
    assert got == data


def test_the_last_bytes_of_one_that_closes_are_received(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    arrival = Arrival(one, WAIT)
    other.sendall(b"some")
    other.shutdown(socket.SHUT_WR)
    began = time.monotonic()
    assert received(arrival, AT_ONCE) == b"some"
    assert received(arrival, AT_ONCE) == b""
    assert time.monotonic() - began < WAIT / 2


def test_a_connection_that_is_shut_down_from_another_thread_ends_the_wait(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    one, other = pair
    other.sendall(b"some")
    threading.Timer(0.1, one.shutdown, [socket.SHUT_RDWR]).start()
    began = time.monotonic()
    assert received(Arrival(one, WAIT), AT_ONCE) in {b"some", b""}
    assert time.monotonic() - began < WAIT / 2


def test_one_that_is_slow_is_heard_when_the_time_is_over(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    arrival = Arrival(one, 0.2)
    other.sendall(b"a little")
    assert received(arrival, AT_ONCE) == b"a little"
    with pytest.raises(BlockingIOError):
        received(arrival, AT_ONCE)
    other.sendall(b"more")
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(WAIT), 0))
    assert received(arrival, 4) == b"more", "few bytes are not waited for with the mark of many"
