"""Calls and answers between a client of any generation and a master, as frames."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.rpc import framing
from engine.rpc.calls import Call, UnknownCall, read_answer, read_call, write_answer, write_call, write_refusal
from engine.rpc.codes import Code
from engine.rpc.framing import Request, Splitter
from engine.rpc.messages import Memory, Replica, ReplicateConfig
from engine.rpc.methods import GENERATIONS, METHODS
from engine.rpc.types import function_id, type_hash
from tests.engine.rpc.values import values

PAIRS = [(name, generation) for name, method in METHODS.items() for generation in method.requests]
CLIENT = bytes(range(16))


def received(frame: bytes) -> Call | UnknownCall:
    (request,) = Splitter(peer="p").requests(frame)
    return read_call(request, "p")


@given(st.data(), st.sampled_from(PAIRS))
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_each_call_of_each_generation_arrives(data: st.DataObject, pair: tuple[str, str]) -> None:
    name, generation = pair
    method = METHODS[name]
    codec = method.requests[generation].codec
    args = data.draw(values(codec.kind)) if codec else ()
    call = received(write_call(7, generation, name, args))
    assert isinstance(call, Call)
    assert (call.sequence, call.form.method, call.args) == (7, method, args)
    assert generation in call.form.generations

    result = data.draw(values(method.answers[generation].kind))
    (answer,) = Splitter(peer="p", answers=True).answers(write_answer(7, call.form, generation, result))
    assert answer.sequence == 7
    assert read_answer(answer, generation, name, "p") == result


def test_what_a_generation_cannot_say_has_its_default() -> None:
    call = received(write_call(1, "0.3.9", "BatchPutEnd", (CLIENT, [], 0, "t")))
    assert isinstance(call, Call)
    assert call.args == (CLIENT, [], 4, "default")
    start = received(write_call(1, "0.3.11", "PutStart", (CLIENT, "k", 5, ReplicateConfig(), "t")))
    assert isinstance(start, Call)
    assert start.args == (CLIENT, "k", 5, ReplicateConfig(preferred_segments=[], preferred_nof_segments=[]), "default")
    assert start.form.generations == ("0.3.11",)


def test_an_unknown_call_is_told_by_number_and_words() -> None:
    body = type_hash(b"\x84\x80\x0c").to_bytes(4, "little") + b"\x04\x84\x80\x0c\0\0"
    call = received(framing.request(3, function_id("DrainTheLake"), body))
    assert isinstance(call, UnknownCall)
    assert call.sequence == 3
    assert call.words == f"function {function_id('DrainTheLake'):#010x} ([string])"


def test_an_unknown_form_of_a_call_is_told_by_its_name() -> None:
    """What a release after these would send."""
    body = type_hash(b"\xfd\x80\x0c\x04\xff").to_bytes(4, "little") + b"\x04\xfd\x80\x0c\x04\xff\0\0" + bytes(8)
    call = received(framing.request(3, function_id("ExistKey"), body))
    assert isinstance(call, UnknownCall)
    assert call.name == "ExistKey"
    assert call.words == "ExistKey ((string, u64))"


@given(st.sampled_from([*(m.function for m in METHODS.values()), 5]), st.binary(max_size=64))
@settings(max_examples=300)
def test_any_body_is_a_call_an_unknown_call_or_the_protocol_error(function: int, body: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        call = read_call(Request(1, function, body), "p")
        if isinstance(call, UnknownCall):
            assert len(call.words) < 8192


def test_a_known_call_that_is_cut_off_is_the_protocol_error() -> None:
    (request,) = Splitter(peer="p").requests(write_call(1, "0.3.13", "ExistKey", ("key", "default")))
    for end in range(4, len(request.body)):
        with pytest.raises(RemoteProtocolError, match="peer host:1 broke the protocol: a call of ExistKey"):
            read_call(request._replace(body=request.body[:end]), "host:1")


def test_a_refusal_says_why() -> None:
    (answer,) = Splitter(peer="p", answers=True).answers(write_refusal(9, framing.NO_FUNCTION, "no such call"))
    with pytest.raises(RemoteProtocolError, match=r"it refuses to Ping \(error 11\): no such call"):
        read_answer(answer, "0.3.13", "Ping", "p")
    with pytest.raises(RemoteProtocolError, match="it gives no reason"):
        read_answer(answer._replace(body=b"text"), "0.3.13", "Ping", "p")


def test_an_answer_in_another_generations_form_is_the_protocol_error() -> None:
    call = received(write_call(1, "0.3.9", "PutStart", (CLIENT, "k", 5, ReplicateConfig(), "t")))
    assert isinstance(call, Call)
    result = [Replica(1, Memory(5, 64, "tcp", "h:1"), 2)]
    frame = framing.answer(1, METHODS["PutStart"].answers["0.3.13"].write(result))
    (answer,) = Splitter(peer="p", answers=True).answers(frame)
    with pytest.raises(RemoteProtocolError, match=r"an answer to PutStart that 0\.3\.9 does not know"):
        read_answer(answer, "0.3.9", "PutStart", "p")


def test_a_void_call_is_answered_with_ok() -> None:
    call = received(write_call(1, GENERATIONS[0], "Remove", ("k", False, "default")))
    assert isinstance(call, Call)
    for result in (Code.OK, Code.LEASED):
        (answer,) = Splitter(peer="p", answers=True).answers(write_answer(1, call.form, "0.3.9", result))
        assert read_answer(answer, "0.3.9", "Remove", "p") is result
