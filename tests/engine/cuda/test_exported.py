"""Memory that another process opens is tried first; what fails on the way leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cuda.exported import Sample, reads_right
from engine.cuda.fake_driver import FakeDriver
from engine.cuda.load import Cuda
from engine.errors import GpuFailed


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Cuda, Cuda]]:
    """Two processes, as far as memory of GPUs goes. In the end neither has anything."""
    made = [Cuda(FakeDriver(2, shared=tmp_path, garbling=[(1, 0)])) for _ in range(2)]
    yield made[0], made[1]
    for cuda in made:
        assert isinstance(cuda.driver, FakeDriver)
        cuda.trim()
        assert set(cuda.driver.open.values()) == {0}
        assert cuda.driver.pageable_copies == cuda.driver.freed_in_use == 0
        cuda.driver.close()


@pytest.mark.parametrize(("owner", "reader", "right"), [(0, 0, True), (0, 1, True), (1, 0, False)])
def test_a_sample_is_read_as_it_is_or_not(two: tuple[Cuda, Cuda], owner: int, reader: int, right: bool) -> None:
    sample = Sample(two[0], owner)
    handle, offset = sample.exported
    assert reads_right(two[1], reader, handle, offset, sample.digest) is right
    assert not reads_right(two[1], reader, handle, offset, "another")
    sample.close()
    sample.close()


@pytest.mark.parametrize("call", ["memory", "export", "stream", "to_device", "record", "event"])
def test_a_sample_that_cannot_be_made(two: tuple[Cuda, Cuda], call: str) -> None:
    driver = two[0].driver
    assert isinstance(driver, FakeDriver)
    driver.refuse(call)
    with pytest.raises(GpuFailed):
        Sample(two[0], 0)


@pytest.mark.parametrize("call", ["open_exported", "memory", "stream", "to_peer", "to_host", "record", "event"])
def test_a_sample_that_cannot_be_read(two: tuple[Cuda, Cuda], call: str) -> None:
    driver = two[1].driver
    assert isinstance(driver, FakeDriver)
    sample = Sample(two[0], 0)
    driver.refuse(call)
    with pytest.raises(GpuFailed):
        reads_right(two[1], 0, sample.exported.handle, sample.exported.offset, sample.digest)
    sample.close()
