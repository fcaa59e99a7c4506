"""Notifications reach their process in their order, and a probe is answered by one that lives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.errors import RemoteProtocolError
from engine.metadata.base import RpcEndpoint
from engine.protocol.handshake import Message, MessageType
from engine.serving.segment_server import SegmentServer
from engine.transfer import messages as module
from engine.transfer.messages import MAX_NOTIFICATIONS, Messages, Notification


@contextmanager
def a_peer() -> Iterator[tuple[Messages, Messages]]:
    """A process with a segment, and what another uses to speak to it."""

    def endpoint(name: str) -> RpcEndpoint:
        assert name == "peer"
        return RpcEndpoint(server.host, server.rpc_port)

    theirs = Messages(endpoint, 60.0)
    server = SegmentServer("127.0.0.1", on_notify=theirs.arrived)
    try:
        yield theirs, Messages(endpoint, 60.0)
    finally:
        server.close()


def test_what_was_sent_is_taken_once_and_in_its_order() -> None:
    with a_peer() as (theirs, ours):
        ours.notify("peer", "a", "one")
        ours.notify("peer", "b", "two")
        assert theirs.take() == [Notification("a", "one"), Notification("b", "two")]
        assert theirs.take() == []
        assert ours.take() == []


def test_a_probe_takes_its_time() -> None:
    with a_peer() as (_, ours):
        assert 0.0 < ours.probe("peer") < 60.0


def test_of_too_many_the_oldest_go() -> None:
    made = Messages(lambda _: RpcEndpoint("", 0), 1.0)
    for number in range(MAX_NOTIFICATIONS + 3):
        made.arrived("n", str(number))
    taken = made.take()
    assert (len(taken), taken[0].text, taken[-1].text) == (MAX_NOTIFICATIONS, "3", str(MAX_NOTIFICATIONS + 2))


@pytest.mark.parametrize("answer", [{}, {"status": "no", "notify_msg": "no"}])
def test_a_peer_that_does_not_say_success(answer: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    def exchange(host: str, port: int, message: Message, *, timeout: float) -> Message:
        assert (host, port, timeout) == ("h", 7, 1.0)
        return Message(MessageType.PROBE, answer)

    monkeypatch.setattr(module, "exchange", exchange)
    made = Messages(lambda _: RpcEndpoint("h", 7), 1.0)
    with pytest.raises(RemoteProtocolError, match="did not take the notification"):
        made.notify("peer", "n", "t")
    with pytest.raises(RemoteProtocolError, match="does not answer a probe"):
        made.probe("peer")
