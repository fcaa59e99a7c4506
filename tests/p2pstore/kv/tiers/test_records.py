"""The form of the log on disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.kv.tiers.records import (
    BLOCK,
    HEADER_BYTES,
    MAX_KEY,
    SALT_BYTES,
    Header,
    first_block,
    packed,
    read,
    salt_of,
    span_of,
)

SALT = bytes(range(SALT_BYTES))
HEADER = Header("default/k", 5000, 7, 3, 0xDEAD)


def block(header: Header = HEADER, salt: bytes = SALT, offset: int = BLOCK) -> bytes:
    return packed(header, salt, offset).ljust(BLOCK, b"\xaa")[:BLOCK]


@given(st.text(max_size=MAX_KEY // 4), st.integers(0, 2**64 - 1), st.integers(1, 2**40))
def test_a_header_comes_back_as_it_was_written(key: str, number: int, blocks: int) -> None:
    header = Header(key, number, number, number, number)
    assert read(block(header, offset=blocks * BLOCK), SALT, blocks * BLOCK) == header


def test_a_header_counts_only_in_its_file_and_place() -> None:
    assert read(block(), SALT, BLOCK) == HEADER
    assert read(block(), SALT, 2 * BLOCK) is None
    assert read(block(), bytes(SALT_BYTES), BLOCK) is None


@given(st.integers(0, HEADER_BYTES + len(HEADER.key) - 1), st.integers(1, 255))
def test_a_header_with_a_wrong_byte_is_none(at: int, change: int) -> None:
    data = bytearray(block())
    data[at] ^= change
    assert read(bytes(data), SALT, BLOCK) is None


@given(st.binary(max_size=200))
def test_other_bytes_are_no_header(data: bytes) -> None:
    assert read(data.ljust(BLOCK, b"\0"), SALT, BLOCK) is None
    assert read((block()[:4] + data).ljust(BLOCK, b"\xff"), SALT, BLOCK) is None


def test_a_record_takes_whole_blocks() -> None:
    assert span_of(9, BLOCK - HEADER_BYTES - 9) == BLOCK
    assert span_of(9, BLOCK - HEADER_BYTES - 8) == 2 * BLOCK
    assert HEADER.span == 2 * BLOCK


def test_a_file_is_known_by_its_first_block() -> None:
    assert salt_of(first_block(SALT)) == SALT


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 12, 27, 35, BLOCK - 1])
def test_a_first_block_that_was_not_written_to_its_end_begins_anew(cut: int) -> None:
    assert salt_of(first_block(SALT)[:cut]) is None
    if cut < BLOCK - 1:  # the rest of a block is zeros
        assert salt_of(first_block(SALT)[: min(cut, 35)].ljust(BLOCK, b"\0")) is None


@pytest.mark.parametrize("data", [b"#!/bin/sh\n", b"MOONshine".ljust(BLOCK, b"\0"), b"\0" * 8 + b"x"])
def test_the_file_of_somebody_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a log of values"):
        salt_of(data)


def test_the_file_of_a_later_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pstore.kv.tiers.records._VERSION", 2)
    later = first_block(SALT)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="another version"):
        salt_of(later)
