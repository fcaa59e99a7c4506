"""A region says where memory lies, and holds it there until it is closed."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import pytest

from engine.errors import UsageError
from engine.memory.region import HOST, Region


@pytest.mark.parametrize(
    "data", [b"abcdef", bytearray(b"abcdef"), memoryview(b"abcdef"), np.frombuffer(b"abcdef", "b")]
)
def test_it_tells_where_memory_lies(data: Any) -> None:
    region = Region.of(data)
    assert (region.length, region.device) == (6, HOST)
    assert ctypes.string_at(region.address, 6) == b"abcdef"
    assert region.view() == b"abcdef"
    assert region.readonly is memoryview(data).readonly


def test_a_part_is_a_place_inside() -> None:
    memory = bytearray(b"abcdef")
    region = Region.of(memory)
    part = region.part(2, 3)
    assert (part.address, part.length) == (region.address + 2, 3)
    view = part.view()
    assert view is not None
    view[:] = b"XYZ"
    assert memory == b"abXYZf"


def test_memory_of_a_device_has_an_address_and_no_view() -> None:
    region = Region(0x7000, 100, owner="whoever allocated it", device="cuda:0")
    part = region.part(10, 20)
    assert (part.address, part.length, part.device, part.view()) == (0x700A, 20, "cuda:0", None)


def test_memory_can_be_unmapped_once_all_regions_are_closed() -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    region = Region.of(memory)
    part = region.part(1, 2)
    region.close()
    with pytest.raises(BufferError):
        memory.close()  # the part may still be written to
    part.close()
    memory.close()


def test_closing_is_told_once() -> None:
    told: list[str] = []
    region = Region.of(bytearray(8)).part(0, 4, lambda: told.append("closed"))
    region.close()
    region.close()
    del region
    assert told == ["closed"]


def test_a_region_that_nobody_closed_is_closed_with_its_last_user() -> None:
    told: list[str] = []
    Region.of(bytearray(8)).part(0, 4, lambda: told.append("closed"))
    assert told == ["closed"]


def test_a_closed_region_has_no_view_and_no_parts() -> None:
    region = Region.of(bytearray(8))
    region.close()
    with pytest.raises(ValueError, match="closed"):
        region.view()
    with pytest.raises(ValueError, match="closed"):
        region.part(0, 1)


@pytest.mark.parametrize("data", [memoryview(bytearray(8))[::2], np.zeros((4, 4))[:, :2]], ids=["memoryview", "array"])
def test_what_is_not_in_one_piece_is_refused(data: Any) -> None:
    with pytest.raises(UsageError, match="is not contiguous"):
        Region.of(data)


@pytest.mark.parametrize("empty", [b"", bytearray(), np.zeros((3, 0))], ids=range(3))
def test_no_bytes_are_a_region_too(empty: Any) -> None:
    region = Region.of(empty)
    assert region.length == 0
    assert region.view() == b""
