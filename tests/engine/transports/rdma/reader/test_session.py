"""The reader's handshakes: with a server of ours, with one that ends after each answer, and with peers that fail."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.errors import PeerStalled, PeerUnreachable, RangeRefused, RemoteProtocolError, TransportUnavailable
from engine.protocol.handshake import Decoder, Message, MessageType, encode
from engine.transports.rdma.reader.session import MAX_RELEASES, Session
from engine.transports.rdma.setup import GRANT, RELEASE, Extent, Setup, granted, refused
from engine.transports.rdma.verbs.fake_verbs import mapped_gid
from tests.ports import closed_port

PATIENT = 60.0
GID = mapped_gid("10.1.0.1")
OURS = Setup("reader@a0", "owner@b0", (17,), GID, mtu=4096, session=True)
THEIRS = Setup("owner@b0", "reader@a0", (18,), GID, mtu=1024, session=True)

Answer = Callable[[dict[str, Any]], Any]


class Peer:
    """A handshake server for one client at a time: ``answers`` are given in turn, and then it closes.

    An answer that is None is none: it closes instead. ``asked`` are the requests' bodies.
    """

    def __init__(
        self, answers: list[Answer], *, keeps: bool = True, kind: MessageType = MessageType.CONNECTION
    ) -> None:
        self.asked: list[dict[str, Any]] = []
        self.connections = 0
        self._answers = answers
        self._keeps = keeps
        self._kind = kind
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENT)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while self._answers:
                sock, _ = self._listener.accept()
                self.connections += 1
                with sock:
                    self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        decoder = Decoder(peer="reader")
        while data := sock.recv(1 << 16):
            message = decoder.feed(data)
            if message is None:
                continue
            decoder = Decoder(peer="reader")
            self.asked.append(message.body)
            body = self._answers.pop(0)(message.body)
            if body is None:
                return
            sock.sendall(encode(Message(self._kind, body)))
            if not self._keeps or not self._answers:
                return


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def session_with(
    stack: contextlib.ExitStack, *answers: Answer, timeout: float = PATIENT, **options: Any
) -> tuple[Session, Peer]:
    peer = Peer([*answers, lambda _: None], **options)
    stack.callback(peer.close)
    session = Session("127.0.0.1", peer.port, "p", connect_timeout=PATIENT, answer_timeout=timeout)
    stack.callback(session.discard)
    return session, peer


def says(body: dict[str, Any]) -> Answer:
    return lambda _: body


def grants(body: dict[str, Any]) -> dict[str, Any]:
    number, _, length = body[GRANT]
    return granted(number, [Extent(length, 4096, {"b0": 5})])


def test_setups_are_exchanged_and_the_connection_stays(stack: contextlib.ExitStack) -> None:
    session, peer = session_with(stack, says(THEIRS.to_json()), grants)
    assert (session.fd, session.kept, session.gone) == (-1, False, False)  # it connects when it is first used
    assert session.connect(OURS) == THEIRS
    assert session.kept
    assert session.fd >= 0
    number, extents = session.grant(1 << 40, 100)
    assert (number, extents) == (1, [Extent(100, 4096, {"b0": 5})])
    assert peer.connections == 1
    assert Setup.from_json(peer.asked[0], peer="p") == OURS


def test_a_peer_that_keeps_no_session_is_connected_to_anew(stack: contextlib.ExitStack) -> None:
    upstreams = Setup("owner@b0", "reader@a0", (18,), GID).to_json()
    session, peer = session_with(stack, says(upstreams), says(upstreams), keeps=False)
    for _ in range(2):
        assert not session.connect(OURS).session
        assert (session.kept, session.fd, session.gone) == (False, -1, False)
    assert peer.connections == 2


def test_what_is_over_is_told_with_the_next_request(stack: contextlib.ExitStack) -> None:
    session, peer = session_with(stack, says(THEIRS.to_json()), grants, grants)
    session.connect(OURS)
    for number in (5, 6):
        session.release(number)
    session.grant(1 << 40, 1)
    session.grant(1 << 40, 1)
    assert [body[RELEASE] for body in peer.asked[1:]] == [[5, 6], []]
    assert [body[GRANT][0] for body in peer.asked[1:]] == [1, 2]


def test_many_that_are_over_are_told_at_once(stack: contextlib.ExitStack) -> None:
    released = threading.Event()
    session, peer = session_with(stack, says(THEIRS.to_json()), lambda _: released.set() or {})
    session.connect(OURS)
    for number in range(MAX_RELEASES):
        assert not released.is_set()
        session.release(number)
    assert released.wait(PATIENT)
    assert peer.asked[1] == {GRANT: [0, 0, 0], RELEASE: list(range(MAX_RELEASES))}


def test_a_release_raises_nothing_where_the_peer_is_gone(stack: contextlib.ExitStack) -> None:
    session, _ = session_with(stack)
    for number in range(3 * MAX_RELEASES):
        session.release(number)
    session.discard()
    for number in range(3 * MAX_RELEASES):
        session.release(number)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Setup("", "", reject="no such device").to_json(), TransportUnavailable, "p says: no such device"),
        ({**THEIRS.to_json(), "qp_num": [1, 2]}, RemoteProtocolError, "another number of queue pairs"),
        ({"qp_num": "none"}, RemoteProtocolError, "qp_num"),
        (None, PeerUnreachable, "closed the handshake"),
    ],
)
def test_a_peer_that_does_not_connect(
    stack: contextlib.ExitStack, answer: dict[str, Any] | None, error: type[Exception], words: str
) -> None:
    session, _ = session_with(stack, lambda _: answer)
    with pytest.raises(error, match=words):
        session.connect(OURS)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (refused(1, "it is not served"), RangeRefused, "100 bytes"),
        ({**refused(1, "memory cannot be pinned"), "fault": True}, TransportUnavailable, "p says: memory cannot"),
        (granted(2, [Extent(100, 4096, {})]), RemoteProtocolError, "not asked for"),
        (granted(1, [Extent(99, 4096, {})]), RemoteProtocolError, "another length"),
        (None, PeerUnreachable, "closed the handshake"),
    ],
)
def test_a_peer_that_grants_nothing(
    stack: contextlib.ExitStack, answer: dict[str, Any] | None, error: type[Exception], words: str
) -> None:
    session, _ = session_with(stack, says(THEIRS.to_json()), lambda _: answer)
    session.connect(OURS)
    with pytest.raises(error, match=words):
        session.grant(1 << 40, 100)


def test_an_answer_of_another_kind_breaks_the_protocol(stack: contextlib.ExitStack) -> None:
    session, _ = session_with(stack, says(THEIRS.to_json()), kind=MessageType.NOTIFY)
    with pytest.raises(RemoteProtocolError, match="NOTIFY"):
        session.connect(OURS)


def test_nobody_there_is_unreachable() -> None:
    session = Session("127.0.0.1", closed_port(), "p", connect_timeout=PATIENT, answer_timeout=PATIENT)
    with pytest.raises(PeerUnreachable, match="refused"):
        session.connect(OURS)
    session.discard()


def test_a_peer_without_an_answer_has_stalled(stack: contextlib.ExitStack) -> None:
    session, peer = session_with(stack, lambda _: peer.over.wait(PATIENT) and None, timeout=0.1)
    with pytest.raises(PeerStalled):
        session.connect(OURS)


def test_the_end_of_the_peer_is_noticed(stack: contextlib.ExitStack) -> None:
    session, peer = session_with(stack, says(THEIRS.to_json()), says(THEIRS.to_json()))
    session.connect(OURS)
    assert not session.gone
    session.connect(OURS)
    with pytest.raises(PeerUnreachable):  # it answers with its end
        session.connect(OURS)
    assert session.gone
    with pytest.raises(PeerUnreachable):
        session.grant(1, 1)
    assert peer.connections == 1  # what was kept is not begun anew: its queue pairs are gone with it


def test_close_from_another_thread_ends_a_wait_and_blames_nobody(stack: contextlib.ExitStack) -> None:
    """The peer closes in answer to ours; that is told as ours."""
    asked = threading.Event()
    session, peer = session_with(stack, lambda _: asked.set() or (peer.over.wait(PATIENT) and None))

    def close() -> None:
        asked.wait(PATIENT)
        session.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(PeerUnreachable, match="the channel was closed"):
        session.connect(OURS)
    closer.join()


@pytest.mark.parametrize("used", [False, True])
def test_a_closed_session_is_not_opened_again(stack: contextlib.ExitStack, used: bool) -> None:
    session, peer = session_with(stack, says(THEIRS.to_json()))
    if used:
        session.connect(OURS)
    session.close()
    session.close()
    with pytest.raises(PeerUnreachable, match="the channel was closed"):
        session.connect(OURS)
    session.discard()
    assert session.fd == -1
    with pytest.raises(PeerUnreachable, match="the channel was closed"):
        session.connect(OURS)
    assert peer.connections <= 2
