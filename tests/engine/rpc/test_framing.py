"""Frames out of whatever pieces a connection brings, and connections that bring something else."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.rpc import framing
from engine.rpc.framing import Answer, Request, Splitter

REQUESTS = st.builds(Request, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=50))
ANSWERS = st.builds(Answer, st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=50))


def pieces(wire: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    return [wire[start:stop] for start, stop in pairwise(places)]


def test_headers_are_coro_rpcs() -> None:
    assert framing.request(1, 0x01020304, b"ab").hex() == "15000000 01000000 04030201 02000000 00000000 6162".replace(
        " ", ""
    )
    assert framing.answer(7, b"ab", 5).hex() == "15000500 07000000 02000000 00000000 6162".replace(" ", "")


@given(st.lists(REQUESTS, max_size=6), st.lists(st.integers(0, 1000), max_size=10))
def test_requests_come_whole_however_they_are_cut(sent: list[Request], cuts: list[int]) -> None:
    splitter = Splitter(peer="p")
    found = []
    for piece in pieces(b"".join(framing.request(*each) for each in sent), cuts):
        found += splitter.requests(piece)
    assert found == sent
    assert splitter.kept == 0


@given(st.lists(ANSWERS, max_size=6), st.lists(st.integers(0, 1000), max_size=10))
def test_answers_come_whole_however_they_are_cut(sent: list[Answer], cuts: list[int]) -> None:
    splitter = Splitter(peer="p", answers=True)
    found = []
    for piece in pieces(b"".join(framing.answer(each.sequence, each.body, each.error) for each in sent), cuts):
        found += splitter.answers(piece)
    assert found == sent
    assert splitter.kept == 0


def test_an_attachment_is_passed_over() -> None:
    wire = framing.REQUEST.pack(21, 1, 2, 3, 4) + b"abcATTA" + framing.request(5, 6, b"x")
    assert Splitter(peer="p").requests(wire) == [Request(1, 2, b"abc"), Request(5, 6, b"x")]


@given(st.binary(min_size=20, max_size=100), st.booleans())
def test_any_bytes_are_frames_or_the_protocol_error(garbage: bytes, answers: bool) -> None:
    splitter = Splitter(peer="p", answers=answers, limit=1000)
    with contextlib.suppress(RemoteProtocolError):
        (splitter.answers if answers else splitter.requests)(garbage)
    assert splitter.kept <= 1000


@pytest.mark.parametrize("wire", [b"GET / HTTP/1.1\r\nHost: h", b"\x16\x03\x01" + bytes(30), bytes(20)])
def test_another_protocol_is_told(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no frame begins with"):
        Splitter(peer="p").requests(wire)


def test_a_metrics_port_is_told_from_one_for_clients() -> None:
    with pytest.raises(RemoteProtocolError, match="no frame begins with 48 54 54 50: that is HTTP, as a metrics port"):
        Splitter(peer="p", answers=True).answers(b"HTTP/1.0 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(("length", "attached"), [(1 << 32 - 1, 0), (0, 0xFFFFFFFF), (framing.MAX_FRAME, 0)])
def test_a_frame_that_is_too_long_is_refused_at_its_header(length: int, attached: int) -> None:
    splitter = Splitter(peer="p")
    with pytest.raises(RemoteProtocolError, match="at most 16777216"):
        splitter.requests(framing.REQUEST.pack(21, 1, 2, min(length, 0xFFFFFFFF), attached))
    assert splitter.kept == 0


def test_a_long_frame_in_many_pieces_is_copied_once() -> None:
    """What is kept grows by what came, and is looked at again only when it is whole."""
    body = bytes(200_000)
    wire = framing.request(1, 2, body)
    splitter = Splitter(peer="p")
    for start in range(0, len(wire) - 100, 100):
        assert splitter.requests(wire[start : start + 100]) == []
        assert splitter.kept == start + 100
    assert splitter.requests(wire[splitter.kept :]) == [Request(1, 2, body)]
