"""What several GPUs show with CUDA's driver alone: no tensor library is needed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cuda.load import Cuda
from p2pstore import P2PStore
from p2pstore.bench.gpu_checkpoint import Checkpoint
from p2pstore.bench.gpu_memory import DriverGpus

MIB = 1 << 20
SIZE = 512 * MIB
Pair = tuple[P2PStore, P2PStore]


@pytest.fixture
def gpus(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[DriverGpus]:
    made = DriverGpus(cuda)
    monkeypatch.setattr("p2pstore.calls.given.framework_of", lambda _, device, __: made.framework(device))
    yield made
    made.close()
    gc.collect()


@pytest.fixture(params=["one GPU", "two places on one", "all GPUs", "all GPUs, each twice"])
def devices(gpus: DriverGpus, request: pytest.FixtureRequest) -> list[str]:
    if request.param == "one GPU":
        return ["cuda:0"]
    if request.param == "two places on one":
        return ["cuda:0", "cuda:0"]
    if len(gpus.names) < 2:
        pytest.skip("NOT TESTED ON SEVERAL GPUS: there is one")
    return gpus.names * (2 if request.param.endswith("twice") else 1)


def sent(store: P2PStore) -> int:
    return store._open().engine.bytes_sent


@pytest.mark.parametrize("layout", ["replicate", "shard"])
def test_all_is_right_and_comes_once(
    pair: Pair, gpus: DriverGpus, tmp_path: Path, devices: list[str], layout: str
) -> None:
    one, other = pair
    (tmp_path / "m").mkdir()
    checkpoint = Checkpoint(tmp_path / "m", SIZE)
    one.register("n", tmp_path / "m")
    found = other.load_tensors("n", devices=devices, layout=layout, transport="tcp")
    ranks = len(devices) if layout == "shard" else 1
    for rank, (device, tensors) in enumerate(zip(devices, found, strict=True)):
        for name, shape, expected in checkpoint.slices(rank % ranks, ranks):
            assert gpus.same(tensors[name], device, shape, expected), (device, name)
    assert sent(one) < 1.1 * checkpoint.size


def test_all_into_one(pair: Pair, gpus: DriverGpus, tmp_path: Path) -> None:
    one, other = pair
    (tmp_path / "m").mkdir()
    checkpoint = Checkpoint(tmp_path / "m", SIZE)
    one.register("n", tmp_path / "m")
    last = gpus.names[-1]
    found = other.load_tensors("n", device=last)
    for name, shape, expected in checkpoint.slices(0, 1):
        assert gpus.same(found[name], last, shape, expected), name
        assert not gpus.same(found[name], last, shape, memoryview(bytes(len(expected)))), "it tells right from wrong"
