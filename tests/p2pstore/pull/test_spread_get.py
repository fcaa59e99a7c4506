"""Tensors into several GPUs of one process, which fake GPUs are: each byte comes once. Real ones: ``tests/gpu``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors

from engine.cuda.fake_driver import FakeDriver
from p2pstore import P2PStore
from p2pstore.errors import ChunkMismatch, GpuFailed, StorageError, TensorNotFound, UsageError
from tests.engine.cuda.gpus import fake, nothing_left, without_torch
from tests.p2pstore.samples import MIB, write_tree
from tests.p2pstore.stores import Pair, two_stores
from tests.p2pstore.tensors.checkpoints import Shapes, file_of
from tests.p2pstore.tensors.on_gpu import OnGpu

SHAPES: Shapes = {
    "lm_head.weight": ("F32", (1024, 700)),
    "byte": ("U8", (1,)),
    "model.norm.weight": ("BF16", (64,)),
    "layers.0.down_proj.weight": ("BF16", (512, 1024)),
    "layers.0.up_proj.weight": ("BF16", (1024, 512)),
    "layers.1.down_proj.weight": ("BF16", (2, 1 << 20)),
}
FILES = {"a.safetensors": file_of(SHAPES, seed=1), "b.safetensors": file_of({"x.w1.weight": ("F32", (8, 8))}, seed=2)}
ALL = {name: tensor["data"] for data in FILES.values() for name, tensor in safetensors.deserialize(data)}
SIZE = sum(map(len, FILES.values()))
STRANGERS = [(0, 2), (0, 3), (1, 2), (1, 3)]


@pytest.fixture(params=[(), STRANGERS], ids=["peers", "two pairs"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """Four of them, to which tensors are loaded. In the end nothing is left on any."""
    without_torch(monkeypatch)
    with fake(4, delay=0.0005, strangers=request.param) as driver:
        made = lambda _, device, __: OnGpu(driver, int(device.partition(":")[2] or 0))  # noqa: E731 - short
        monkeypatch.setattr("p2pstore.calls.given.framework_of", made)
        yield driver


@pytest.fixture
def pair(gpu: FakeDriver, tmp_path: Path) -> Iterator[Pair]:
    """The first has it."""
    with two_stores() as (one, other):
        write_tree(tmp_path / "m", FILES)
        one.register("n", tmp_path / "m", chunk_size=MIB)
        yield one, other
    nothing_left(gpu)


def sent(store: P2PStore) -> int:
    return store._open().engine.bytes_sent


def load(pair: Pair, devices: list[int], **options: Any) -> list[dict[str, Any]]:
    return pair[1].load_tensors("n", devices=[f"cuda:{device}" for device in devices], transport="tcp", **options)


def joined(parts: list[dict[str, bytes]]) -> dict[str, bytes]:
    """The tensors of all ranks' slices, by Megatron's conventions."""
    found = {}
    for name, (kind, shape) in {**SHAPES, "x.w1.weight": ("F32", (8, 8))}.items():
        each = [part[name] for part in parts]
        if "down_proj" in name:
            row = len(ALL[name]) // shape[0] // len(parts)
            cut = [[part[at : at + row] for at in range(0, len(part), row)] for part in each]
            found[name] = b"".join(rank[number] for number in range(shape[0]) for rank in cut)
        elif kind == "U8" or "norm" in name:
            assert len(set(each)) == 1
            found[name] = each[0]
        else:
            found[name] = b"".join(each)
    return found


@pytest.mark.parametrize("devices", [[0], [0, 1, 2, 3], [2, 2], [3, 0, 3, 1, 0, 2, 1]], ids=str)
def test_all_get_the_same_and_it_comes_once(gpu: FakeDriver, pair: Pair, devices: list[int]) -> None:
    assert load(pair, devices) == [ALL] * len(devices)
    assert SIZE * 0.9 < sent(pair[0]) < 1.5 * SIZE  # a chunk that is late may be asked for twice
    assert gpu.to_devices - _tried(gpu, devices) <= 2 * SIZE, "the host sends it once to each group of peers"


def _tried(gpu: FakeDriver, devices: list[int]) -> int:
    return len(set(devices)) ** 2 * 256 * 1024


@pytest.mark.parametrize("devices", [[0], [0, 1], [0, 0, 0, 0], [2, 1, 3, 0]], ids=str)
def test_each_gets_its_ranks_slices_and_all_comes_once(gpu: FakeDriver, pair: Pair, devices: list[int]) -> None:
    found = load(pair, devices, layout="shard")
    assert len(found) == len(devices)
    assert joined(found) == ALL
    assert SIZE * 0.9 < sent(pair[0]) < 1.5 * SIZE


def test_slices_are_those_of_one_rank_alone(gpu: FakeDriver, pair: Pair) -> None:
    found = load(pair, [1, 3, 2], layout="shard", include=["*_proj.*"], cut={"*": None, "*.0.up*": (0, 1, 2)})
    for rank, tensors in enumerate(found):
        cut = {"*": None, "*.0.up*": (0, 1, 2)}
        alone = pair[1].load_tensors("n", device="cuda:0", include=["*_proj.*"], cut=cut, rank=(rank, 3))
        assert tensors == alone


def test_one_ranks_slices_for_all(gpu: FakeDriver, pair: Pair) -> None:
    first, second = load(pair, [0, 1], rank=(1, 2), include=["*.up_proj.*"])
    assert first == second == {"layers.0.up_proj.weight": ALL["layers.0.up_proj.weight"][512 * 1024 :]}


def test_progress_is_of_the_object_and_not_of_all_copies(gpu: FakeDriver, pair: Pair) -> None:
    told: list[tuple[int, int]] = []
    load(pair, [0, 1, 2], progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert max(total for _, total in told) <= SIZE


def test_a_peer_that_garbles_is_not_relied_upon(pair: Pair, gpu: FakeDriver) -> None:
    gpu._garbling.add((1, 0))
    assert load(pair, [0, 1]) == [ALL] * 2


def test_what_is_wrong_never_gets_there(
    gpu: FakeDriver, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = pair[0]._open()
    monkeypatch.setattr(node.parts.watcher, "_on_touched", lambda _: None)
    path = tmp_path / "m" / "a.safetensors"
    data = bytearray(FILES["a.safetensors"])
    before = path.stat()
    data[2 * MIB] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ChunkMismatch):
        load(pair, [0, 1])


@pytest.mark.parametrize("call", ["to_device", "to_peer", "record", "stream", "wait"])
def test_a_call_that_fails_ends_it_and_leaves_nothing(gpu: FakeDriver, pair: Pair, call: str) -> None:
    load(pair, [0, 1], include=["byte"])  # by now all are tried
    gpu.refuse(call)
    with pytest.raises(GpuFailed, match="OUT_OF_MEMORY"):
        load(pair, [0, 1])
    assert load(pair, [0, 1]) == [ALL] * 2


def test_no_room_on_one_of_them(gpu: FakeDriver, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def area(self: OnGpu, length: int) -> Any:
        if self.device == 2:
            raise StorageError(path="memory of cuda:2", detail="cannot allocate memory")
        return before(self, length)

    before = OnGpu.area
    monkeypatch.setattr(OnGpu, "area", area)
    with pytest.raises(StorageError, match="cuda:2"):
        load(pair, [0, 1, 2])


def test_what_does_not_fit_together(gpu: FakeDriver, pair: Pair) -> None:
    with pytest.raises(TensorNotFound):
        load(pair, [0, 1], include=["none*"])
    with pytest.raises(UsageError, match="no multiple of 3"):
        load(pair, [0, 1, 2], layout="shard")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devices": []}, "names no GPU"),
        ({"devices": "cuda:0"}, "must be a list of texts"),
        ({"devices": [0, 1]}, "each of the devices must be text"),
        ({"devices": ["cuda:0"], "device": "cuda:1"}, "either device='cuda:1' or devices=, not both"),
        ({"devices": ["cuda:0"], "layout": "half"}, "the layout must be one of replicate, shard"),
        ({"devices": ["cuda:0"], "layout": "shard", "rank": (0, 1)}, "leave rank= out"),
        ({"devices": ["cuda:0"], "cut": {"*": 0}}, "with a rank or layout='shard'"),
        ({"devices": ["cuda:0"], "rank": 1}, "the rank must be"),
        ({"layout": "shard"}, "name them with devices="),
        ({"layout": "half"}, "the layout must be one of replicate, shard"),
    ],
)
def test_slips_are_told(gpu: FakeDriver, pair: Pair, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        pair[1].load_tensors("n", **options)


def test_devices_are_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = SimpleNamespace(device=lambda name: SimpleNamespace(type=name.partition(":")[0]))
    monkeypatch.setitem(sys.modules, "torch", torch)
    with two_stores() as (_, other):
        with pytest.raises(UsageError, match="devices= are GPUs, such as 'cuda:0', and 'cpu' is none"):
            other.load_tensors("n", devices=["cpu"])
        with pytest.raises(UsageError, match="devices= are GPUs: use framework='torch'"):
            other.load_tensors("n", devices=["cuda:0"], framework="numpy")
        monkeypatch.setitem(sys.modules, "torch", None)
        for device, words in (
            ("cuda:0", "needs that package: pip install torch$"),
            ("cpu", "'cpu' is none"),
            ("mps", "'mps' is none$"),
        ):
            with pytest.raises(UsageError, match=words):
                other.load_tensors("n", devices=[device])
