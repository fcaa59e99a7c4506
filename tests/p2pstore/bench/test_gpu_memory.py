"""Memory of GPUs without a tensor library takes tensors, tells right from wrong, and is given back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cuda import load
from engine.cuda.fake_driver import FakeDriver
from p2pstore.bench.gpu_checkpoint import Checkpoint
from p2pstore.bench.gpu_memory import DriverGpus, Part
from p2pstore.errors import StorageError
from tests.engine.cuda.gpus import fake, nothing_left
from tests.p2pstore.stores import two_stores


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeDriver, DriverGpus]]:
    with fake(2) as driver:
        made = DriverGpus(load.cuda())
        monkeypatch.setattr("p2pstore.calls.given.framework_of", lambda _, device, __: made.framework(device))
        yield driver, made
        made.close()
        gc.collect()
        nothing_left(driver)


def test_tensors_of_two_gpus(gpus: tuple[FakeDriver, DriverGpus], tmp_path: Path) -> None:
    _, made = gpus
    checkpoint = Checkpoint(tmp_path, 1)
    with two_stores() as (one, other):
        one.register("n", tmp_path)
        found = other.load_tensors("n", devices=["cuda:0", "cuda:1"], layout="shard")
        for rank, tensors in enumerate(found):
            device = f"cuda:{rank}"
            for name, shape, expected in checkpoint.slices(rank, 2):
                assert made.same(tensors[name], device, shape, expected)
                assert not made.same(tensors[name], f"cuda:{1 - rank}", shape, expected)
                assert not made.same(tensors[name], device, (shape[1], shape[0]), expected)
                wrong = bytearray(expected)
                wrong[-1] ^= 1
                assert not made.same(tensors[name], device, shape, memoryview(wrong))
        del found, tensors
    load.cuda().trim()


def test_what_is_empty_has_no_memory(gpus: tuple[FakeDriver, DriverGpus]) -> None:
    _, made = gpus
    framework = made.framework("cuda:1")
    assert bytes(framework.view(framework.area(0))[:0]) == b""
    assert made.same(Part(None, "F32", (0, 4), 0, 0), "cuda:1", (0, 4), memoryview(b""))


def test_no_room(gpus: tuple[FakeDriver, DriverGpus]) -> None:
    driver, made = gpus
    driver.refuse("memory")
    with pytest.raises(StorageError, match="memory of GPU 0"):
        made.framework("cuda:0").area(1 << 20)
