"""Two processes say more than sockets hold, and neither waits for the other."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from p2pstore.sharing.link import Link
from p2pstore.sharing.messages import Kind, Message

WAIT = 60.0
COUNT = 20_000
"""Messages: several times what a socket's buffer holds."""


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture
def links(sockets: tuple[socket.socket, socket.socket]) -> tuple[Link, Link]:
    return Link(sockets[0]), Link(sockets[1])


def heard(link: Link, count: int, other: Link | None = None) -> list[Message]:
    """So many messages; the other side goes on, too, if it is given, and hears nothing."""
    found: list[Message] = []
    until = time.monotonic() + WAIT
    while len(found) < count:
        assert time.monotonic() < until
        said = link.hear(0)
        assert said is not None
        found += said
        assert other is None or other.hear(0) == []
    return found


def test_nobody_waits_and_nothing_is_lost(links: tuple[Link, Link]) -> None:
    one, other = links
    for number in range(COUNT):  # nobody hears meanwhile
        one.say(Message(Kind.OFFERED, number, 1))
        if number < 5:
            other.say(Message(Kind.COPIED, number))
    assert [message.chunk for message in heard(one, 5)] == list(range(5))


def test_all_comes_in_order(links: tuple[Link, Link]) -> None:
    one, other = links
    for number in range(COUNT):
        one.say(Message(Kind.OFFERED, number, 1))
    assert [message.chunk for message in heard(other, COUNT, one)] == list(range(COUNT))


def test_who_goes_is_heard_behind_what_it_said(links: tuple[Link, Link]) -> None:
    one, other = links
    other.say(Message(Kind.PULSE))
    one.say(Message(Kind.COUNTS, 7))
    one.close()
    assert other.hear(WAIT) == [Message(Kind.COUNTS, 7)]
    assert other.hear(WAIT) is None
    other.say(Message(Kind.PULSE))
    assert other.hear(WAIT) is None


def test_what_is_no_message_is_told(sockets: tuple[socket.socket, socket.socket]) -> None:
    sock, theirs = sockets
    sock.sendall(b"\xff" * 200)
    with pytest.raises(ValueError, match="255"):
        Link(theirs).hear(WAIT)


def test_who_says_nothing_is_not_waited_for(links: tuple[Link, Link]) -> None:
    assert links[0].hear(0.01) == []
