"""Tensors are loaded into memory of GPUs, on the fake GPU, which does all copies late. A real one: ``tests/gpu``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors

from engine.cuda.device_memory import DeviceMemory
from engine.cuda.fake_driver import FakeDriver
from p2pstore.errors import ChunkMismatch, GpuFailed, GpuUnavailable, UsageError
from p2pstore.pull.tensor_get import TensorRequest
from p2pstore.tensors.frameworks import framework_of
from p2pstore.tensors.patterns import NamePatterns
from p2pstore.tensors.ranks import Ranks
from tests.engine.cuda.gpus import Tensor, fake, nothing_left, without_torch
from tests.p2pstore.samples import MIB, write_tree
from tests.p2pstore.stores import Pair, two_stores
from tests.p2pstore.tensors.checkpoints import Shapes, file_of
from tests.p2pstore.tensors.on_gpu import OnGpu

WAIT = 60.0
SHAPES: Shapes = {
    "lm_head.weight": ("F32", (1024, 700)),
    "byte": ("U8", (3,)),
    "model.norm.weight": ("BF16", (64,)),
    "layers.0.down_proj.weight": ("BF16", (512, 1024)),
    "layers.0.up_proj.weight": ("BF16", (1024, 512)),
    "layers.1.down_proj.weight": ("BF16", (2, 1 << 20)),
}
FILES = {"a.safetensors": file_of(SHAPES, seed=1), "b.safetensors": file_of({"x.w1.weight": ("F32", (8, 8))}, seed=2)}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    without_torch(monkeypatch)
    with fake(1, delay=0.0005) as driver:
        yield driver


@pytest.fixture
def pair(gpu: FakeDriver) -> Iterator[Pair]:
    """In the end nothing is left on the GPU."""
    with two_stores() as stores:
        yield stores
    nothing_left(gpu)


def loaded(pair: Pair, gpu: FakeDriver, root: Path, *patterns: str, ranks: Ranks | None = None) -> dict[str, bytes]:
    one, other = pair
    if not root.exists():
        write_tree(root, FILES)
        one.register("n", root, chunk_size=MIB)
    node = other._open()
    request = TensorRequest("n", OnGpu(gpu), NamePatterns(patterns), ranks)
    return other._thread.call(node.load_tensors(request), WAIT)


ALL = {name: tensor["data"] for data in FILES.values() for name, tensor in safetensors.deserialize(data)}


def test_all_of_a_checkpoint(gpu: FakeDriver, pair: Pair, tmp_path: Path) -> None:
    assert loaded(pair, gpu, tmp_path / "m") == ALL


def test_some_of_it(gpu: FakeDriver, pair: Pair, tmp_path: Path) -> None:
    names = ("byte", "x.w1.weight", "layers.0.up_proj.weight")
    assert loaded(pair, gpu, tmp_path / "m", *names) == {name: ALL[name] for name in names}


@pytest.mark.parametrize("world", [2, 4])
def test_each_ranks_slices(gpu: FakeDriver, pair: Pair, tmp_path: Path, world: int) -> None:
    names = ("lm_head.*", "*_proj.*", "x.*")
    parts = [loaded(pair, gpu, tmp_path / "m", *names, ranks=Ranks(rank, world)) for rank in range(world)]
    for name in ("lm_head.weight", "layers.0.up_proj.weight", "x.w1.weight"):
        assert b"".join(part[name] for part in parts) == ALL[name]
    for name, rows in (("layers.0.down_proj.weight", 512), ("layers.1.down_proj.weight", 2)):
        size = len(ALL[name]) // rows // world
        cut = [[part[name][row * size : (row + 1) * size] for row in range(rows)] for part in parts]
        assert b"".join(cut[rank][row] for row in range(rows) for rank in range(world)) == ALL[name]


def test_what_is_wrong_never_gets_there(
    gpu: FakeDriver, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = pair
    write_tree(tmp_path / "m", FILES)
    one.register("n", tmp_path / "m", chunk_size=MIB)
    node = one._open()
    monkeypatch.setattr(node.parts.watcher, "_on_touched", lambda _: None)
    path = tmp_path / "m" / "a.safetensors"
    data = bytearray(FILES["a.safetensors"])
    before = path.stat()
    data[2 * MIB] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ChunkMismatch):
        loaded(pair, gpu, tmp_path / "m")


def test_a_gpu_that_fails(gpu: FakeDriver, pair: Pair, tmp_path: Path) -> None:
    loaded(pair, gpu, tmp_path / "m", "byte")
    gpu.refuse("to_device")
    with pytest.raises(GpuFailed):
        loaded(pair, gpu, tmp_path / "m")


def fake_torch(gpu: FakeDriver, used: list[int]) -> Any:
    """As much of PyTorch as is needed to have memory of a GPU on a stream."""

    class Stream:
        cuda_stream = 7

        def __enter__(self) -> None:
            used.append(self.cuda_stream)

        def __exit__(self, *_: object) -> None:
            pass

    def empty(length: int, *, dtype: Any, device: Any) -> Any:
        return Tensor(gpu, bytes(length))

    def device(name: str) -> Any:
        return SimpleNamespace(type=name.partition(":")[0], index=0)

    cuda = SimpleNamespace(current_stream=lambda _: Stream(), stream=lambda stream: stream, device_count=lambda: 0)
    return SimpleNamespace(__version__="2", uint8=1, device=device, empty=empty, cuda=cuda)


def test_pytorch_is_used_on_the_callers_stream(gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    with gpu.on(0):
        stream = gpu.stream()
    torch = fake_torch(gpu, used)
    torch.cuda.current_stream(0).__class__.cuda_stream = stream
    monkeypatch.setitem(sys.modules, "torch", torch)
    made = framework_of("torch", "cuda:0")
    memory = made.view(made.area(100))
    assert isinstance(memory, DeviceMemory)
    assert memory.ready
    assert used == [stream, stream]
    memory.release()
    with gpu.on(0):
        gpu.end_stream(stream)
    nothing_left(gpu)


def test_a_pytorch_without_cuda(gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = fake_torch(gpu, [])

    def none(_: object) -> Any:
        raise AssertionError("Torch not compiled with CUDA enabled")

    torch.cuda.current_stream = none
    monkeypatch.setitem(sys.modules, "torch", torch)
    told = "PyTorch cannot use 'cuda:0': Torch not compiled with CUDA enabled; "
    with pytest.raises(UsageError, match=f"{told}use device='cpu'$"):
        framework_of("torch", "cuda:0")
    with two_stores() as (one, _):
        with pytest.raises(UsageError, match=f"{told}leave devices= out$"):
            one.load_tensors("n", devices=["cuda:0"])
        monkeypatch.setenv("LOCAL_RANK", "0")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        with pytest.raises(UsageError, match=f"{told}leave share= out$"):
            one.load_tensors("n", share="host")


@pytest.mark.parametrize(
    ("count", "advice"),
    [(1, "name the only one that it sees, 'cuda:0'"), (4, "name one of the 4 that it sees, from 'cuda:0'")],
)
def test_a_gpu_that_there_is_not(gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch, count: int, advice: str) -> None:
    """As where each rank sees one GPU alone, which is its first."""
    torch = fake_torch(gpu, [])

    def none(_: object) -> Any:
        raise RuntimeError("CUDA error: invalid device ordinal\nCompile with TORCH_USE_CUDA_DSA")

    torch.cuda.current_stream, torch.cuda.device_count = none, lambda: count
    monkeypatch.setitem(sys.modules, "torch", torch)
    with pytest.raises(UsageError, match=f"PyTorch cannot use 'cuda:7': CUDA error: invalid device ordinal; {advice}"):
        framework_of("torch", "cuda:7", "leave share= out")


def test_a_host_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Any:
        raise GpuUnavailable(detail="there is no driver", todo="install one")

    monkeypatch.setitem(sys.modules, "torch", fake_torch(None, []))  # type: ignore[arg-type]
    monkeypatch.setattr("p2pstore.tensors.frameworks.cuda", none)
    with pytest.raises(GpuUnavailable):
        framework_of("torch", "cuda:0")


def test_one_by_one(gpu: FakeDriver, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of a chunk's tensors have memory of their own each."""
    one, other = pair
    write_tree(tmp_path / "m", FILES)
    one.register("n", tmp_path / "m", chunk_size=MIB)
    monkeypatch.setattr("p2pstore.calls.given.framework_of", lambda *_: OnGpu(gpu))
    found = dict(other.iter_tensors("n", device="cuda:0"))
    assert found == ALL
