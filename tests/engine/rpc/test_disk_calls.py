"""What clients ask one another about their disks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.rpc import disk_calls
from engine.rpc.codes import Code
from engine.rpc.disk_calls import Done, Ready, Wanted
from engine.rpc.framing import Request, Splitter

NAMES = st.text(max_size=300)
U64 = st.integers(0, 2**64 - 1)


def request(frame: bytes) -> Request:
    (found,) = Splitter(peer="a caller").requests(frame)
    return found


def answered(frame: bytes) -> Ready | Code:
    (found,) = Splitter(peer="an owner", answers=True).answers(frame)
    return disk_calls.told(found, "an owner")


@given(st.lists(NAMES, max_size=5), st.lists(st.integers(0, 2**63 - 1), max_size=5))
def test_a_question_comes_as_it_was_asked(names: list[str], sizes: list[int]) -> None:
    assert disk_calls.asked(request(disk_calls.ask(1, Wanted(names, sizes))), "p") == Wanted(names, sizes)


def test_a_batch_that_is_let_go_of_comes_as_it_was_said() -> None:
    assert disk_calls.asked(request(disk_calls.ask(7, Done(99))), "p") == Done(99)


@given(U64, st.lists(U64, max_size=300), NAMES, U64)
def test_an_answer_comes_as_it_was_given(batch: int, addresses: list[int], endpoint: str, lease: int) -> None:
    ready = Ready(batch, addresses, endpoint, lease)
    assert answered(disk_calls.tell(1, ready)) == ready


def test_a_code_is_an_answer() -> None:
    assert answered(disk_calls.tell(1, Code.NOT_FOUND)) is Code.NOT_FOUND


def test_numbers_and_types_are_those_of_the_wheel() -> None:
    """As the binary of 0.3.13 has them."""
    frame = disk_calls.ask(1, Wanted(["k"], [1]))
    assert frame[8:12] == (0xDC8109D6).to_bytes(4, "little")
    assert bytes.fromhex("fd 84 80 0c 84 03 ff 00") in frame
    assert bytes.fromhex("87 fd 04 84 04 80 0c 04 ff 01 00") in disk_calls.tell(1, Ready(1, [], "", 0))


def test_what_nobody_knows_is_refused() -> None:
    assert disk_calls.asked(Request(1, 12345, b""), "p") is None
    with pytest.raises(RemoteProtocolError, match="does not read its disk for others"):
        answered(disk_calls.refuse(1))


@given(st.binary(max_size=80))
def test_garbage_is_a_protocol_error(body: bytes) -> None:
    good = request(disk_calls.ask(1, Wanted(["k"], [1])))
    try:
        disk_calls.asked(good._replace(body=body), "p")
    except RemoteProtocolError as error:
        assert "cannot be read" in str(error)  # noqa: PT017 - it may be none


def test_a_name_has_its_tenant() -> None:
    assert disk_calls.tenant_and_key(disk_calls.stored_name("t", "a\0b")) == ("t", "a\0b")
    assert disk_calls.tenant_and_key("a") == ("default", "a")
