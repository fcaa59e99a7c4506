"""The two checksums: known values, values in parts, and our own table where liblzma is missing."""

from __future__ import annotations

import mmap
import random
from collections.abc import Iterator

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.kv.client import checksums

KNOWN = 0x6C40DF5F0B497347
"""CRC-64 of ECMA-182 of "123456789", as upstream's own test has it."""


@pytest.fixture(params=["liblzma", "ours"])
def update(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whose CRC is used."""
    checksums._update.cache_clear()
    if request.param == "ours":
        monkeypatch.setattr(checksums.ctypes, "CDLL", _missing)
        assert checksums._update() is checksums._slowly
    elif checksums._update() is checksums._slowly:
        pytest.skip("NO TEST OF LIBLZMA: it is not here")
    yield
    checksums._update.cache_clear()


def _missing(name: str) -> None:
    raise OSError(name)


@pytest.mark.usefixtures("update")
def test_crc64_is_upstreams() -> None:
    assert checksums.crc64([memoryview(b"123456789")]) == KNOWN
    assert checksums.crc64([]) == checksums.crc64([memoryview(b"")]) == 0
    assert checksums.crc64([memoryview(b"123"), memoryview(b""), memoryview(b"456789")]) == KNOWN


@pytest.mark.usefixtures("update")
def test_crc64_takes_values_of_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    data = memoryview(random.Random(1).randbytes(10_000))
    expected = checksums.crc64([data])
    monkeypatch.setattr(checksums, "_STEP", 999)
    assert checksums.crc64([data]) == expected
    assert checksums.crc64([data[:1], data[1:5000], data[5000:]]) == expected


def test_either_checksum_is_right_and_no_other() -> None:
    data = [memoryview(b"some"), memoryview(b"thing")]
    for made in (checksums.xxh3, checksums.crc64):
        assert checksums.is_right(data, made(data))
    assert not checksums.is_right(data, 0)
    assert not checksums.is_right([memoryview(b"somethinG")], checksums.xxh3(data))


@pytest.mark.parametrize("size", [1, 1000, 1 << 20, (1 << 20) + 1, (1 << 20) + (1 << 18), 3_000_001])
@pytest.mark.parametrize("further", [0, 1, 63, 64, 2048, 4095])
def test_what_is_hashed_while_it_is_copied_is_what_was_copied(size: int, further: int) -> None:
    """Wherever in their pages both lie."""
    data = random.Random(size).randbytes(size)
    source, room = mmap.mmap(-1, size), mmap.mmap(-1, further + size + 1)
    source[:] = data
    found = checksums.copied(memoryview(room)[further : further + size], memoryview(source))
    assert room[:] == bytes(further) + data + b"\0"
    assert found == xxhash.xxh3_64_intdigest(data)


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_where_parts_begin_makes_no_difference(parts: list[bytes]) -> None:
    views, whole = [memoryview(each) for each in parts], memoryview(b"".join(parts))
    assert checksums.xxh3(views) == xxhash.xxh3_64_intdigest(whole)
    assert checksums.crc64(views) == checksums._slowly(0, whole)
