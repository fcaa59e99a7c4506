"""The bench of GPUs with real agents, on fake GPUs: it measures no speed here, and everything else is as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.cuda.fake_driver import FakeDriver
from p2pstore.bench import gpu as module
from p2pstore.bench.gpu import LAYOUTS, GpuPlan, TorchGpus, measure
from p2pstore.errors import GpuUnavailable, StorageError, TensorsDiffer, UsageError
from p2pstore.tensors.plan import Place
from tests.engine.cuda.gpus import fake, nothing_left, without_torch
from tests.p2pstore.tensors.on_gpu import OnGpu


class FakeGpus:
    """Those of the fake driver. Tensors are their shapes and bytes, and where they lie."""

    def __init__(self, count: int) -> None:
        self.names: Sequence[str] = [f"cuda:{number}" for number in range(count)]
        self.settled = 0
        self.wrong = ""

    def same(self, tensor: Any, device: str, shape: tuple[int, int], expected: memoryview) -> bool:
        assert tensor[0] == device
        return device != self.wrong and tensor[1] == shape and tensor[2] == bytes(expected)

    def settle(self) -> None:
        self.settled += 1


class Shaped(OnGpu):
    def tensor(self, area: Any, place: Place) -> Any:
        return f"cuda:{self.device}", place.shape, super().tensor(area, place)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    without_torch(monkeypatch)
    with fake(2) as driver:
        made = lambda _, device, __: Shaped(driver, int(device.partition(":")[2]))  # noqa: E731 - short
        monkeypatch.setattr("p2pstore.calls.given.framework_of", made)
        yield driver


def test_each_layout_is_measured_and_compared(gpu: FakeDriver, tmp_path: Path) -> None:
    said: list[str] = []
    gpus = FakeGpus(2)
    document = measure(GpuPlan(1, rounds=2, directory=tmp_path), gpus, said.append).to_json()
    assert json.loads(json.dumps(document)) == document
    assert [row["layout"] for row in document["rows"]] == list(LAYOUTS)
    assert [row["devices"] for row in document["rows"]] == [1, 2, 2]
    assert document["rows"][0]["times_one"] == 1.0
    for row in document["rows"]:
        assert 0.9 < row["received_times"] < 1.5, "a chunk that is late may be asked for twice"
        assert 0 < row["least_seconds"] <= row["seconds"] <= row["most_seconds"]
    assert document["peers"] == [[0, 1]]
    assert document["devices"] == ["cuda:0", "cuda:1"]
    assert gpus.settled == 9
    assert sum("does not count" in line for line in said) == 3
    assert list(tmp_path.iterdir()) == []
    nothing_left(gpu)


def test_one_gpu_is_named_twice_and_no_time_is_over_that_of_one_where_it_was_not_taken(
    gpu: FakeDriver, tmp_path: Path
) -> None:
    plan = GpuPlan(1, layouts=("replicate",), rounds=1, agents=2, directory=tmp_path)
    document = measure(plan, FakeGpus(1), lambda _: None).to_json()
    assert document["devices"] == ["cuda:0", "cuda:0"]
    assert document["rows"][0]["times_one"] is None


def test_wrong_bytes_end_it_and_leave_nothing(gpu: FakeDriver, tmp_path: Path) -> None:
    gpus = FakeGpus(2)
    gpus.wrong = "cuda:1"
    with pytest.raises(TensorsDiffer, match="is not on cuda:1 as it was sent"):
        measure(GpuPlan(1, layouts=("shard",), directory=tmp_path), gpus, lambda _: None)
    assert list(tmp_path.iterdir()) == []
    nothing_left(gpu)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layouts": ("one", "half")}, "--layouts: 'half' is none of one, replicate, shard"),
        ({"layouts": ()}, "--layouts: 'nothing' is none of"),
        ({"rounds": 0}, "--rounds: 0 is not between 1 and 1000"),
        ({"agents": 17}, "--agents: 17 is not between 1 and 16"),
        ({"devices": ("cuda:7",)}, "--devices: 'cuda:7' is none of cuda:0, cuda:1"),
        ({"devices": ("cuda:0",) * 9}, "9 devices cannot share the tensors of this bench"),
    ],
)
def test_plans_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        measure(GpuPlan(1, **options), FakeGpus(2), lambda _: None)


def test_no_room(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there-is-none"):
        measure(GpuPlan(1, directory=tmp_path / "there-is-none"), FakeGpus(2), lambda _: None)


def test_no_gpu_and_no_pytorch(gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="'bench gpu' needs PyTorch"):
        TorchGpus()

    def none() -> Any:
        raise GpuUnavailable(detail="there is no driver", todo="install one")

    monkeypatch.setattr(module.load, "cuda", none)
    with pytest.raises(GpuUnavailable):
        TorchGpus()
