"""Messages as bytes and back: each type of each generation, and bytes that are not what they say."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.rpc import framing
from engine.rpc import types as t
from engine.rpc.codes import Code
from engine.rpc.compiled import MALFORMED, Codec
from engine.rpc.lines import WIDTHS
from engine.rpc.messages import Memory, Replica
from engine.rpc.methods import METHODS
from engine.rpc.readers import reader
from engine.rpc.writers import writer
from tests.engine.rpc.values import values

KINDS = {
    codec.kind.literal: codec.kind
    for method in METHODS.values()
    for codec in (*method.answers.values(), *(form.codec for form in method.requests.values() if form.codec))
}
STRINGS = t.Vector(t.STRING)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.literal.hex())
def test_what_is_written_is_read_back(kind: t.Type) -> None:
    codec = Codec(kind)

    @given(values(kind))
    @settings(max_examples=8, suppress_health_check=list(HealthCheck))
    def back(value: object) -> None:
        assert codec.read(codec.write(value)) == value
        for width in WIDTHS:
            assert reader(kind, width)(writer(kind, width)(value), 0) == value

    back()


@given(st.sampled_from(list(KINDS.values())), st.sampled_from([-1, 4, 12, 20, 28]), st.binary(max_size=99))
@settings(max_examples=500)
def test_any_bytes_are_read_or_refused(kind: t.Type, meta: int, rest: bytes) -> None:
    codec = Codec(kind)
    prefix = (codec.hash - 1).to_bytes(4, "little")
    if meta >= 0:
        prefix = codec.hash.to_bytes(4, "little") + bytes([meta]) + kind.literal + b"\0"
    usual = codec.hash.to_bytes(4, "little") + bytes([4]) + kind.literal + b"\0"
    for begun in (prefix, usual, prefix):  # the first that begins as is usual makes a reader of what begins so
        with contextlib.suppress(MALFORMED):
            codec.read(begun + rest)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.literal.hex())
def test_a_message_is_read_wherever_it_begins_and_however_wide_its_lengths_are(kind: t.Type) -> None:
    codec = Codec(kind)

    @given(values(kind))
    @settings(max_examples=4, suppress_health_check=list(HealthCheck))
    def back(value: object) -> None:
        for width in (1, 2, 1, 4, 8):
            with contextlib.suppress(struct.error, IndexError):  # it may be too narrow
                wire = codec._written(value, width)
                assert codec.read(wire) == codec.read(b"head" + wire, 4) == value

    back()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.literal.hex())
def test_the_frame_of_an_answer_has_the_message_in_it(kind: t.Type) -> None:
    codec = Codec(kind)

    @given(values(kind), st.integers(0, 2**32 - 1))
    @settings(max_examples=4, suppress_health_check=list(HealthCheck))
    def same(value: object, sequence: int) -> None:
        for _ in range(2):
            assert codec.answer(sequence, value) == framing.answer(sequence, codec.write(value))

    same()


@given(st.data(), st.sampled_from(list(KINDS.values())))
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_a_message_with_a_byte_changed_is_read_or_refused(data: st.DataObject, kind: t.Type) -> None:
    codec = Codec(kind)
    wire = bytearray(codec.write(data.draw(values(kind))))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(wire)))
    with contextlib.suppress(MALFORMED):
        codec.read(bytes(wire[:cut]))


@pytest.mark.parametrize(
    ("kind", "value", "wire"),
    [
        (t.Expected(t.BOOL), True, "d300e890 04 870b0100 01 01"),
        (t.Expected(t.BOOL), Code.NOT_FOUND, "d300e890 04 870b0100 00 40fdffff"),
        (t.Expected(t.VOID), Code.OK, "cd6828af 04 87fa0100 01"),
        (t.Expected(t.VOID), Code.LEASED, "cd6828af 04 87fa0100 00 3efdffff"),
        (t.Vector(t.Expected(t.VOID)), [Code.OK, Code.LEASED], "cf52fc39 04 8487fa0100 02 01 00 3efdffff"),
        (t.STRING, "2.0.0", "77facf9d 04 800c00 05 322e302e30"),
        (t.STRING, "x" * 256, "77facf9d 0c 800c00 0001" + "78" * 256),
        (t.STRING, "x" * 65536, "77facf9d 14 800c00 00000100" + "78" * 65536),
    ],
    ids=lambda each: each[:60] if isinstance(each, str) else getattr(each, "words", None),
)
def test_bytes_are_those_of_upstream(kind: t.Type, value: object, wire: str) -> None:
    codec = Codec(kind)
    assert codec.write(value).hex() == wire.replace(" ", "")
    assert codec.read(bytes.fromhex(wire)) == value


def test_a_batch_writes_success_and_absence_each_in_its_form() -> None:
    assert Codec(t.Vector(t.Expected(t.VOID))).write([Code.OK, Code.OK]).endswith(b"\x02\x01\x01")
    assert Codec(t.Vector(t.Expected(t.BOOL))).write([True, False]).endswith(b"\x02\x01\x01\x01\x00")


def test_a_message_without_literal_and_meta_data_is_read_too() -> None:
    """struct_pack leaves both out where it is told to, and where all lengths have one byte."""
    codec = Codec(STRINGS)
    assert codec.read((codec.hash - 1).to_bytes(4, "little") + b"\x01\x02ab") == ["ab"]
    assert codec.read(codec.hash.to_bytes(4, "little") + b"\x08\x01\x00\x02\x00ab") == ["ab"]


def test_a_long_list_of_short_strings_has_wide_lengths() -> None:
    codec = Codec(STRINGS)
    for count in (255, 256, 65535, 65536):
        keys = [str(number) for number in range(count)]
        assert codec.read(codec.write(keys)) == keys


@pytest.mark.parametrize("width", WIDTHS)
def test_text_that_is_no_utf8_survives(width: int) -> None:
    key = b"\xff\xfe\x00key\xc3".decode("utf-8", "surrogateescape")
    for kind, value in ((t.STRING, key), (STRINGS, [key, "", "ä"])):
        assert reader(kind, width)(writer(kind, width)(value), 0) == value


@pytest.mark.parametrize(
    "wire",
    [
        "00",  # nothing
        "02 01 61",  # one of two
        "01 05 61",  # a string longer than the message
        "01 01 61 00 00",  # less than the message
        "ff 01 61",
    ],
)
def test_lengths_that_lie_are_refused(wire: str) -> None:
    codec = Codec(t.arguments(["keys", "tenant"], {}, {"keys": STRINGS, "tenant": t.STRING}))
    prefix = codec.write(([], ""))[: 6 + len(codec.kind.literal)]
    with pytest.raises(MALFORMED):
        codec.read(prefix + bytes.fromhex(wire))


@pytest.mark.parametrize(
    "kind", [STRINGS, t.Vector(t.U64), t.Vector(t.ID), t.Map(t.STRING, t.U64)], ids=lambda k: k.words
)
def test_a_count_of_billions_takes_no_memory(kind: t.Type) -> None:
    codec = Codec(kind)
    body = codec.hash.to_bytes(4, "little") + bytes([0b10100]) + kind.literal + b"\0" + b"\xff" * 4 + bytes(1000)
    tracemalloc.start()
    try:
        with pytest.raises(MALFORMED):
            codec.read(body)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_other_meta_data_and_another_literal_are_refused() -> None:
    codec = Codec(t.STRING)
    good = codec.write("a")
    for bad in (
        good[:4] + b"\x05" + good[5:],
        good[:4] + b"\xe4" + good[5:],
        good[:5] + b"\x84" + good[6:],
        good[:4],
        b"",
    ):
        with pytest.raises(MALFORMED):
            codec.read(bad)


def test_a_place_that_a_generation_lacks_is_refused() -> None:
    old = METHODS["PutStart"].answers["0.3.9"]
    value = [Replica(1, Memory(2, 3, "tcp", "h:1"), 2)]
    assert old.read(old.write(value)) == value
    with pytest.raises(TypeError, match="has no tuple"):
        old.write([Replica(1, (2, 3, "tcp", "h:1"), 2)])  # type: ignore[arg-type]
