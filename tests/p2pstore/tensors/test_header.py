"""What a safetensors header may say; the package itself is the judge of what it means."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import safetensors
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pstore.tensors import header
from p2pstore.tensors.dtypes import DTYPES
from p2pstore.tensors.header import Header, HeaderFault, make_header, parse_header
from tests.p2pstore.tensors.checkpoints import Shapes, file_of, framed, header_of

GOOD: Shapes = {
    "b": ("BF16", (3, 4)),
    "a": ("F32", ()),
    "empty": ("I64", (0, 7)),
    "packed": ("F4", (2, 4)),
    "six": ("F6_E2M3", (4,)),
    "ü": ("BOOL", (1,)),
}


def theirs(data: bytes) -> dict[str, Any] | None:
    """What the package finds in a file; None where it refuses it."""
    try:
        return dict(safetensors.deserialize(data))
    except safetensors.SafetensorError:
        return None


def compare(found: Header, data: bytes) -> None:
    expected = theirs(data)
    assert expected is not None
    assert {t.name for t in found.tensors} == set(expected)
    for tensor in found.tensors:
        other = expected[tensor.name]
        assert (tensor.dtype, list(tensor.shape)) == (other["dtype"], other["shape"])
        assert data[tensor.begin : tensor.end] == other["data"]


def ours(data: bytes) -> Header | None:
    try:
        return parse_header(data, len(data))
    except HeaderFault:
        return None


def test_what_is_in_a_file() -> None:
    data = file_of(GOOD, {"format": "pt"})
    found = parse_header(data, len(data))
    assert found.metadata == {"format": "pt"}
    assert [tensor.name for tensor in found.tensors] == ["b", "a", "empty", "packed", "six", "ü"]
    assert found.tensors[0].begin == found.length
    compare(found, data)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_known_to_the_package(dtype: str) -> None:
    data = file_of({"t": (dtype, (2, 4))})
    compare(parse_header(data, len(data)), data)


def test_the_package_knows_no_type_that_we_do_not() -> None:
    """Its message lists all that it has."""
    text = framed(b'{"t":{"dtype":"F3","shape":[],"data_offsets":[0,0]}}')
    with pytest.raises(safetensors.SafetensorError) as refused:
        safetensors.deserialize(text)
    listed = {word.strip("`,.") for word in str(refused.value).partition("expected")[2].split()}
    assert set(DTYPES) <= listed
    assert {word for word in listed if word.isupper() or "_" in word} <= set(DTYPES) | {"F3"}


def test_a_file_without_tensors() -> None:
    assert parse_header(framed(b"{}"), 10) == Header(10, (), {})
    assert parse_header(framed(b'{"__metadata__":null}  '), 31).tensors == ()


def one(**changes: Any) -> bytes:
    entry: dict[str, Any] = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    entry.update(changes)
    return json.dumps({"t": {k: v for k, v in entry.items() if v is not ...}}).encode()


LIES = {
    "nothing at all": (b"", "has 0 bytes"),
    "half a length": (b"\0\0\0\0", "has 4 bytes"),
    "longer than the file": ((100).to_bytes(8, "little") + b"{}", "and the file has 10"),
    "longer than is allowed": ((header.MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}", "100000000 are allowed"),
    "the longest length": (b"\xff" * 8 + b"{}", "are allowed"),
    "no length": (b"\0" * 8, "does not begin with"),
    "a list": (framed(b"[]"), "does not begin with"),
    "a space before": (framed(b" {}"), "does not begin with"),
    "no JSON": (framed(b"{"), "no JSON"),
    "more than JSON": (framed(b"{}{}"), "no JSON"),
    "no UTF-8": (framed(b'{"\xff":1}'), "not UTF-8"),
    "half a character": (framed(b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "not UTF-8"),
    "not a number": (framed(b'{"x":NaN}'), "NaN"),
    "too deep": (framed(b'{"x":' + b"[" * 200_000), "nested"),
    "a name twice": (framed(b'{"t":1,"t":2}'), "comes twice"),
    "a key twice": (framed(b'{"t":{"dtype":"U8","dtype":"I8"}}'), "comes twice"),
    "metadata of numbers": (framed(b'{"__metadata__":{"a":1}}'), "not a table of texts"),
    "metadata that is text": (framed(b'{"__metadata__":"a"}'), "not a table of texts"),
    "no description": (framed(b'{"t":[1]}'), "not described by an object"),
    "no type": (framed(one(dtype=...), bytes(4)), "type that is not known"),
    "an unknown type": (framed(one(dtype="U9"), bytes(4)), "'U9'"),
    "a type of another kind": (framed(one(dtype=[1]), bytes(4)), "type that is not known"),
    "no shape": (framed(one(shape=...), bytes(4)), "a shape that is no list"),
    "a negative shape": (framed(one(shape=[-2, -2]), bytes(4)), "a shape that is no list"),
    "a fraction": (framed(one(shape=[4.0]), bytes(4)), "a shape that is no list"),
    "true": (framed(one(shape=[True, 4]), bytes(4)), "a shape that is no list"),
    "minus nothing": (framed(b'{"t":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'), "a shape that is no list"),
    "too many dimensions": (framed(one(shape=[1] * 65, data_offsets=[0, 1]), bytes(1)), "a shape that is no list"),
    "a huge shape": (framed(one(shape=[1 << 40, 1 << 40]), bytes(4)), "more numbers than can be counted"),
    "a huge shape of nothing": (
        framed(one(shape=[1 << 40, 1 << 40, 0], data_offsets=[0, 0])),
        "more numbers than can be counted",
    ),
    "a number of a thousand digits": (framed(b'{"t":{"shape":[%b]}}' % (b"9" * 1000)), "type that is not known"),
    "a number of five thousand digits": (
        framed(b'{"t":{"dtype":"U8","shape":[%b],"data_offsets":[0,0]}}' % (b"9" * 5000)),
        "a shape that is no list",
    ),
    "no offsets": (framed(one(data_offsets=...), bytes(4)), "not two whole numbers"),
    "one offset": (framed(one(data_offsets=[0]), bytes(4)), "not two whole numbers"),
    "three offsets": (framed(one(data_offsets=[0, 4, 4]), bytes(4)), "not two whole numbers"),
    "offsets that run backwards": (framed(one(shape=[0], data_offsets=[4, 0]), bytes(4)), "has -4 bytes"),
    "fewer bytes than its shape": (framed(one(data_offsets=[0, 3]), bytes(3)), "its type and shape make 4"),
    "an end outside": (framed(one(), bytes(3)), "its tensors end at"),
    "bytes after the last": (framed(one(), bytes(5)), "its tensors end at"),
    "a hole before the first": (framed(one(data_offsets=[1, 5]), bytes(5)), "a gap"),
    "half a byte": (framed(one(dtype="F4", shape=[3], data_offsets=[0, 2]), bytes(2)), "does not end with a byte"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies(name: str) -> None:
    data, sentence = LIES[name]
    with pytest.raises(HeaderFault) as refused:
        parse_header(data, len(data))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("offset", "word"), [(3, "overlaps"), (5, "gap")])
def test_tensors_lie_one_after_the_other(offset: int, word: str) -> None:
    entries = header_of({"a": ("U8", (4,)), "b": ("U8", (4,))})
    entries["b"] = {"dtype": "U8", "shape": [4], "data_offsets": [offset, offset + 4]}
    data = framed(json.dumps(entries).encode(), bytes(offset + 4))
    assert theirs(data) is None
    with pytest.raises(HeaderFault, match=f"'b' .*{word}"):
        parse_header(data, len(data))


def test_a_long_name_is_shown_in_short() -> None:
    with pytest.raises(HeaderFault) as refused:
        parse_header(framed(json.dumps({"x" * 10_000: 1}).encode()), 100_000)
    assert len(str(refused.value)) < 200


SMALL = st.integers(0, 5)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 1 << 70)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from([*DTYPES]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape", "t"]), inner),
    max_leaves=6,
)
ENTRIES = st.fixed_dictionaries(
    {"dtype": st.sampled_from([*DTYPES]) | VALUES, "shape": st.lists(SMALL, max_size=3) | VALUES},
    optional={"data_offsets": st.lists(SMALL, min_size=2, max_size=2) | VALUES, "more": VALUES},
)
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "ü", "__metadata__"]), ENTRIES | VALUES, max_size=3)


@given(HEADERS, st.integers(0, 12), st.booleans())
@example({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, 4, True)
@settings(max_examples=400)
def test_what_is_taken_is_what_the_package_reads(entries: dict[str, Any], tail: int, ascii_only: bool) -> None:
    data = framed(json.dumps(entries, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"), bytes(tail))
    found = ours(data)
    if found is not None:
        compare(found, data)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(framed))
@settings(max_examples=400)
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    found = ours(data)
    if found is not None:
        compare(found, data)


GOOD_BYTES = file_of(GOOD, {"format": "pt"})


@given(st.integers(0, len(GOOD_BYTES) - 1), st.integers(0, 255), st.integers(-3, 3))
@settings(max_examples=400)
def test_a_byte_that_is_wrong(at: int, byte: int, longer: int) -> None:
    data = bytearray(GOOD_BYTES)
    data[at] = byte
    data = data[:longer] if longer < 0 else data + bytes(longer)
    found = ours(bytes(data))
    if found is not None:
        compare(found, bytes(data))


KINDS = st.tuples(
    st.sampled_from([name for name, kind in DTYPES.items() if kind.bits >= 8]), st.lists(SMALL, max_size=3).map(tuple)
)


@given(
    st.dictionaries(st.text(max_size=5).filter(lambda n: n != "__metadata__"), KINDS, max_size=5),
    st.sampled_from([1, 8, 64]),
)
def test_what_the_package_reads_is_taken(shapes: Shapes, pad: int) -> None:
    data = file_of(shapes, {"a": "b"}, pad=pad)
    found = ours(data)
    assert (found is None) == (theirs(data) is None)
    assert found is not None
    compare(found, data)


def test_a_header_that_we_make() -> None:
    data = file_of(GOOD)
    found = parse_header(data, len(data))
    some = [tensor for tensor in found.tensors if tensor.name in {"a", "packed", "ü"}]
    text, places = make_header(some, {"format": "pt"})
    assert len(text) % 8 == 0
    made = text + b"".join(data[t.begin : t.end] for t in some)
    again = parse_header(made, len(made))
    assert again.tensors == places
    assert again.metadata == {"format": "pt"}
    compare(again, made)
    assert [made[t.begin : t.end] for t in places] == [data[t.begin : t.end] for t in some]


def test_the_length_is_looked_at_before_the_header() -> None:
    assert header.header_length((16).to_bytes(8, "little"), 24) == 24
    assert math.log2(header.MAX_TENSOR_BITS) == 63
