"""Both ends of an exchange, without a socket: how the bytes are cut changes nothing, and any bytes are read or blamed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.protocol import wire
from engine.protocol.exchange import (
    NEXT,
    STATUS_OK,
    STATUS_REJECTED,
    Event,
    ReplyReader,
    ReplyState,
    ReplyWriter,
    RequestReader,
    Step,
    acknowledged,
    acknowledging,
    refusal,
)
from engine.protocol.wire import Opcode, Request

OK = wire.pack_status(0)
CUTS = st.lists(st.integers(1, 12), max_size=30)
"""How many bytes move at a time; after that, as many as may."""
VERSIONS = st.sampled_from([1, 2])
REQUESTS = st.builds(Request, st.sampled_from(Opcode), st.integers(0, 2**64 - 1), st.integers(0, 40), VERSIONS)
REPLIES = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda body: OK + body),
    st.builds(lambda code, more: wire.pack_status(code) + more, st.integers(0, 2**32 - 1), st.binary(max_size=9)),
)


class Cutter:
    """Decides how much moves."""

    def __init__(self, cuts: list[int]) -> None:
        self._cuts = list(cuts)

    def __call__(self, most: int) -> int:
        return min(most, self._cuts.pop(0)) if self._cuts else most


def read(reply: ReplyReader, data: bytes, length: int, cuts: list[int]) -> tuple[list[ReplyState], bytes, bytes]:
    """Receive the reply to a READ of ``length`` bytes from a peer that sends ``data`` and closes.

    The states that it went through, the body, and what it left unread.
    """
    cut = Cutter(cuts)
    body = bytearray()
    reply.expect(length)
    states = [reply.state]
    while reply.waits:
        room = memoryview(bytearray(reply.left))
        views = reply.into(room)
        count = min(len(data), cut(sum(len(view) for view in views)))
        came, data = data[:count], data[count:]
        for view in views:
            part, came = came[: len(view)], came[len(view) :]
            view[: len(part)] = part
        body += room[: reply.received(count)]
        if reply.state is not states[-1]:
            states.append(reply.state)
    return states, bytes(body), data


def outcome(data: bytes, length: int, version: int, cuts: list[int]) -> tuple[list[ReplyState], bytes, int] | str:
    """How it ended, the body, and the code; or what the peer is blamed for."""
    reply = ReplyReader(version, peer="p")
    try:
        states, body, _ = read(reply, data, length, cuts)
    except RemoteProtocolError as error:
        return str(error)
    # A status and its body may come at once, so that nobody sees what lies between.
    return [states[-1]], body, reply.code


@given(REPLIES, st.integers(0, 40), VERSIONS, CUTS)
def test_however_a_reply_is_cut_it_means_the_same(data: bytes, length: int, version: int, cuts: list[int]) -> None:
    assert outcome(data, length, version, cuts) == outcome(data, length, version, [])


@given(REPLIES, st.integers(0, 40), VERSIONS, CUTS)
def test_any_reply_is_read_or_blames_the_peer(data: bytes, length: int, version: int, cuts: list[int]) -> None:
    """The body is what follows an OK (in version 1, everything), as far as it was asked for and came."""
    reply = ReplyReader(version, peer="p")
    head, rest = (data[:8], data[8:]) if version == 2 else (OK, data)
    try:
        states, body, unread = read(reply, data, length, cuts)
    except RemoteProtocolError:
        assert version == 2
        assert len(head) == 8
        assert head[4:] != OK[4:]
        return
    assert states[-1] not in NEXT
    assert body == (rest[:length] if head == OK else b"")
    assert reply.left == length - len(body)
    if states[-1] is ReplyState.DONE:
        assert not reply.left
        assert unread == rest[length:]  # what follows belongs to the next reply
    elif states[-1] is ReplyState.REFUSED:
        assert reply.code == int.from_bytes(head[:4], "little") > 0
    else:
        assert not unread
        assert (states[-1] is ReplyState.UNANSWERED) == (not data if version == 1 else len(head) < 8)


@given(st.lists(st.integers(0, 9), max_size=5), VERSIONS, CUTS)
def test_one_reader_reads_many_replies(lengths: list[int], version: int, cuts: list[int]) -> None:
    reply = ReplyReader(version, peer="p")
    data = b"".join((OK if version == 2 else b"") + bytes([length]) * length for length in lengths)
    for length in lengths:
        states, body, data = read(reply, data, length, cuts)
        assert states[-1] is ReplyState.DONE
        assert body == bytes([length]) * length
    assert not data


def test_states_are_told_as_they_come() -> None:
    by_byte = [1] * 20
    for data, length, version, states in (
        (OK + b"abc", 3, 2, [ReplyState.STATUS, ReplyState.BODY, ReplyState.DONE]),
        (OK, 0, 2, [ReplyState.STATUS, ReplyState.DONE]),
        (OK + b"ab", 3, 2, [ReplyState.STATUS, ReplyState.BODY, ReplyState.CUT]),
        (OK[:7], 3, 2, [ReplyState.STATUS, ReplyState.UNANSWERED]),
        (wire.pack_status(7), 3, 2, [ReplyState.STATUS, ReplyState.REFUSED]),
        (b"abc", 3, 1, [ReplyState.FIRST_BYTE, ReplyState.BODY, ReplyState.DONE]),
        (b"a", 1, 1, [ReplyState.FIRST_BYTE, ReplyState.DONE]),
        (b"", 3, 1, [ReplyState.FIRST_BYTE, ReplyState.UNANSWERED]),
        (b"a", 3, 1, [ReplyState.FIRST_BYTE, ReplyState.BODY, ReplyState.CUT]),
        (b"", 0, 1, [ReplyState.DONE]),
    ):
        assert read(ReplyReader(version, peer="p"), data, length, by_byte)[0] == states


def test_what_a_close_left_undone_is_told() -> None:
    reply = ReplyReader(2, peer="p")
    read(reply, OK[:7], 3, [])
    assert reply.closed_how == "it closed the connection instead of an answer"
    read(reply := ReplyReader(2, peer="p"), OK + b"a", 3, [])
    assert reply.closed_how == "it closed the connection 2 bytes before the end"


@pytest.mark.parametrize(("version", "ending"), [(1, ReplyState.UNANSWERED), (2, ReplyState.REFUSED)])
def test_a_refusal_is_what_the_reader_takes_for_one(version: int, ending: ReplyState) -> None:
    says_no = refusal(Request(Opcode.READ, 5, 9, version))
    assert read(ReplyReader(version, peer="p"), says_no, 9, [])[0][-1] is ending


@given(st.integers(0, 2**40), st.integers(1, 2**20))
def test_every_write_is_acknowledged(address: int, length: int) -> None:
    """Version 2 by its status; version 1 by its last byte, which is read after it."""
    assert acknowledging(address, length, 2) == (b"", 0)
    sent, awaited = acknowledging(address, length, 1)
    reader = RequestReader(peer="p")
    reader.feed(sent)
    assert reader.next() == Request(Opcode.READ, address + length - 1, awaited, 1)


def test_the_table_has_no_dead_ends() -> None:
    reached = {after for row in NEXT.values() for after in row.values()}
    assert reached | {ReplyState.STATUS, ReplyState.FIRST_BYTE} == set(ReplyState)
    for row in NEXT.values():
        assert row[Event.CLOSED] not in NEXT


def write(request: Request, body: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Carry out a granted request whose bytes are ``body``; what is sent, and what is taken."""
    cut = Cutter(cuts)
    writer = ReplyWriter(request)
    sent, taken = bytearray(), bytearray()
    while writer.step is not Step.OVER:
        at = request.length - writer.left
        if writer.step is Step.TAKE_BODY:
            count = cut(writer.left)
            taken += body[at : at + count]
        else:
            status = writer.status if writer.step is Step.SEND_STATUS else b""
            may = status + body[at : at + (writer.behind if status else writer.left)]
            count = cut(len(may))
            sent += may[:count]
        assert 0 <= writer.moved(count) <= count
    assert not writer.left
    return bytes(sent), bytes(taken)


@given(REQUESTS, CUTS, CUTS, st.binary(min_size=40, max_size=40))
def test_what_a_server_writes_a_client_reads(request: Request, cuts: list[int], more: list[int], memory: bytes) -> None:
    body = memory[: request.length]
    sent, taken = write(request, body, cuts)
    status = OK if request.version == 2 else b""
    if request.opcode is Opcode.READ:
        assert (sent, taken) == (status + body, b"")
    else:
        assert (sent, taken) == (status, body)
    expected = body if request.opcode is Opcode.READ else b""
    states, got, unread = read(ReplyReader(request.version, peer="p"), sent, len(expected), more)
    assert (states[-1], got, unread) == (ReplyState.DONE, expected, b"")


def requests(data: bytes, cuts: list[int]) -> tuple[list[Request], bytes, bool]:
    """The requests in ``data``, the bodies of those that write, and whether the peer is to blame for the rest."""
    cut = Cutter(cuts)
    reader = RequestReader(peer="p")
    found: list[Request] = []
    bodies = bytearray()
    due = 0
    while True:
        if due and (taken := reader.take(due)):
            bodies += taken
            due -= len(taken)
        if not due:
            try:
                request = reader.next()
            except RemoteProtocolError:
                return found, bytes(bodies), True
            if request is not None:
                found.append(request)
                due = request.length if request.opcode is Opcode.WRITE else 0
                continue
        if not data:
            return found, bytes(bodies), False
        count = cut(len(data))
        reader.feed(data[:count])
        data = data[count:]


@given(st.lists(REQUESTS, max_size=6), st.binary(min_size=40, max_size=40), CUTS)
def test_however_requests_are_cut_they_mean_the_same(asked: list[Request], memory: bytes, cuts: list[int]) -> None:
    data, bodies = bytearray(), bytearray()
    for each in asked:
        body = memory[: each.length] if each.opcode is Opcode.WRITE else b""
        data += wire.pack_request(each.address, each.length, opcode=each.opcode, version=each.version) + body
        bodies += body
    assert requests(bytes(data), cuts) == (asked, bytes(bodies), False)


@given(st.binary(max_size=200), CUTS)
def test_any_bytes_are_requests_or_blame_the_peer(data: bytes, cuts: list[int]) -> None:
    assert requests(data, cuts) == requests(data, [])


def test_a_refused_connection_is_forgotten() -> None:
    reader = RequestReader(peer="p")
    reader.feed(b"\xff" * 100)
    reader.forget()
    assert reader.next() is None
    assert reader.take(9) == b""


@pytest.mark.parametrize("version", [1, 2])
def test_a_status_and_its_body_are_received_in_one_call(version: int) -> None:
    reply = ReplyReader(version, peer="p")
    reply.expect(4)
    room = memoryview(bytearray(4))
    views = reply.into(room)
    assert views[-1] is room
    assert sum(len(view) for view in views) == 4 + (8 if version == 2 else 0)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 0),
        (STATUS_OK[:7], 0),
        (STATUS_OK * 3, 3),
        (STATUS_OK * 3 + STATUS_OK[:1], 3),
        (STATUS_REJECTED, 0),
        (STATUS_OK * 2 + STATUS_REJECTED + STATUS_OK, 2),
        (STATUS_OK + b"\0" * 9, 1),
    ],
)
def test_statuses_are_counted_up_to_the_first_that_says_something_else(data: bytes, count: int) -> None:
    assert acknowledged(memoryview(data)) == count
