"""Tensors of real libraries are served from a real GPU, and received into it, bit for bit."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.cuda.load import ARRIVING_BYTES, LEAVING_BYTES, Cuda
from p2pstore import P2PStore
from p2pstore.errors import ChunkMismatch, GpuFailed, UsageError
from tests.gpu.checkpoints import path_with

torch = pytest.importorskip("torch", reason="NOT TESTED ON A GPU: PyTorch is not installed")

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
TYPES = sorted(
    {str(each).removeprefix("torch.") for each in vars(torch).values() if isinstance(each, torch.dtype)}
    - {"quint2x4", "quint4x2", "qint8", "qint32", "quint8"}  # which lie on no GPU
)
Pair = tuple[P2PStore, P2PStore]


def noise(count: int, device: str = "cuda:0", seed: int = 1) -> Any:
    generator = torch.Generator(device=device).manual_seed(seed)
    return torch.randint(0, 256, (count,), dtype=torch.uint8, device=device, generator=generator)


def over(storage: Any) -> Any:
    return torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage)


@pytest.mark.parametrize("name", TYPES)
def test_every_type(pair: Pair, name: str) -> None:
    one, other = pair
    kind = getattr(torch, name)
    bytes_ = noise(3 * MIB + 48)
    try:
        source = bytes_.view(kind) if kind != torch.bool else bytes_ > 127
        room = torch.zeros_like(bytes_).view(kind) if kind != torch.bool else torch.zeros_like(source)
    except (RuntimeError, TypeError) as error:
        pytest.skip(f"PyTorch cannot make it: {error}")
    one.register("n", source)
    other.get_into("n", room)
    assert torch.equal(room.view(torch.uint8), source.view(torch.uint8))
    host = bytearray(source.numel() * source.element_size())
    other.get_into("n", host)
    assert bytes(host) == source.view(torch.uint8).cpu().numpy().tobytes()


def test_parameters_and_orders_of_dimensions(pair: Pair) -> None:
    one, other = pair
    made = {
        "parameter": torch.nn.Parameter(torch.randn(1000, 300, dtype=torch.bfloat16, device="cuda")),
        "channels last": torch.randn(4, 8, 16, 16, device="cuda").to(memory_format=torch.channels_last),
        "transposed": torch.randn(100, 200, device="cuda").t(),
        "number": torch.tensor(5.0, device="cuda"),
        "nothing": torch.zeros(0, 4, device="cuda"),
        "storage": torch.randn(1000, device="cuda").untyped_storage(),
    }
    made["part"] = torch.randn(100, 200, device="cuda")[10:20]
    room = {
        path: torch.UntypedStorage(each.nbytes(), device="cuda") if path == "storage" else torch.zeros_like(each)
        for path, each in made.items()
    }
    one.register("n", made)
    other.get_into("n", room)
    for path, each in made.items():
        if path == "storage":
            assert torch.equal(over(room[path]), over(each))
        else:
            assert torch.equal(room[path], each), path
    for bad, words in ((made["part"][:, ::2], "contiguous"), (torch.eye(3, device="cuda").to_sparse(), "sparse")):
        with pytest.raises(UsageError, match=words):
            one.register("m", bad)


def test_cupy(pair: Pair) -> None:
    cupy = pytest.importorskip("cupy")
    one, other = pair
    source = cupy.arange(1_000_000, dtype=cupy.float64).reshape(1000, 1000)
    cupy.cuda.Device().synchronize()  # the stream that made it is not the one below, and CuPy names just the current one
    with cupy.cuda.Stream(non_blocking=True):
        room = cupy.zeros_like(source)
        one.register("n", source)
        other.get_into("n", room)
    assert bool((room == source).all())
    with pytest.raises(UsageError, match="contiguous"):
        one.register("m", source[:, ::2])


def test_jax(pair: Pair) -> None:
    jax = pytest.importorskip("jax")
    one, other = pair
    if jax.default_backend() != "gpu":
        pytest.skip("NOT TESTED WITH JAX: it sees no GPU")
    for kind in (jax.numpy.float32, jax.numpy.bfloat16):
        source = jax.numpy.arange(1_000_000, dtype=kind) * 2
        one.register("n", source, force=True)
        room = bytearray(source.nbytes)
        other.get_into("n", room)
        import numpy as np

        assert bytes(room) == np.asarray(source).tobytes()
        with pytest.raises(UsageError, match="read-only"):
            other.get_into("n", source)


def test_what_the_current_stream_has_to_do_comes_first(pair: Pair) -> None:
    """A kernel that was started before must not write over what came; and what comes after sees all of it."""
    one, other = pair
    source = noise(64 * MIB)
    one.register("n", source)
    room, stream = torch.zeros_like(source), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(2_000_000_000)
        room.fill_(3)
        other.get_into("n", room)
    another = torch.cuda.Stream()
    with torch.cuda.stream(another):
        equal = torch.equal(room, source)
    assert equal


def test_it_is_registered_as_it_is_when_the_current_stream_has_ended(pair: Pair) -> None:
    one, other = pair
    source, expected, stream = (
        torch.zeros(8 * MIB, dtype=torch.uint8, device="cuda"),
        noise(8 * MIB),
        torch.cuda.Stream(),
    )
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(1_000_000_000)
        source.copy_(expected)
        one.register("n", source)
    room = torch.zeros_like(source)
    other.get_into("n", room)
    assert torch.equal(room, expected)


def test_what_is_changed_while_it_is_served_is_refused(pair: Pair) -> None:
    one, other = pair
    source = noise(8 * MIB)
    one.register("n", source)
    source[5 * MIB] ^= 1
    torch.cuda.synchronize()
    with pytest.raises(ChunkMismatch):
        other.get_into("n", torch.zeros_like(source), peers=[one.control])


def test_neither_much_is_pinned_nor_all_of_it_staged(
    cuda: Cuda, pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = pair
    size = 2048 * MIB
    expected = noise(size)
    with (tmp_path / "n").open("wb") as file:
        for start in range(0, size, 256 * MIB):
            file.write(expected[start : start + 256 * MIB].cpu().numpy().tobytes())
    one.register("n", tmp_path / "n")
    room = torch.zeros_like(expected)
    torch.cuda.synchronize()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    other.get_into("n", room, transport="tcp")
    seconds = time.monotonic() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert torch.equal(room, expected)
    assert cuda.most_pinned_bytes <= ARRIVING_BYTES + LEAVING_BYTES <= 1 << 30
    assert grown < 1.2 * (1 << 30)
    with capsys.disabled():
        rate, pinned = size / seconds / 1e9, cuda.most_pinned_bytes / MIB
        print(f"\n  tcp: {rate:.1f} GB/s, {pinned:.0f} MiB pinned at most, {grown / MIB:.0f} MiB more resident")


def test_from_gpu_to_gpu_over_tcp(pair: Pair) -> None:
    one, other = pair
    if torch.cuda.device_count() < 2:
        pytest.skip("NOT TESTED WITH TWO GPUS: there is one")
    source = {"a": noise(100 * MIB, "cuda:0"), "b": noise(100 * MIB, "cuda:1", 2)}
    room = {"a": torch.zeros_like(source["a"], device="cuda:1"), "b": torch.zeros_like(source["b"], device="cuda:0")}
    one.register("n", source)
    other.get_into("n", room)
    for path, each in source.items():
        assert torch.equal(room[path].cpu(), each.cpu())
    assert torch.cuda.current_device() == 0


def test_memory_that_is_no_gpus(pair: Pair) -> None:
    made = SimpleNamespace(
        __cuda_array_interface__={"shape": (8,), "typestr": "|u1", "data": (0xDEAD0000, False), "version": 3}
    )
    with pytest.raises(GpuFailed, match="CUDA_ERROR_INVALID_VALUE") as caught:
        pair[0].register("n", made)
    assert "keep the tensor" in caught.value.hint


# In processes of their own, since CUDA is of no use afterwards


def said_by(program: str, **variables: str) -> str:
    import os

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path_with(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BEGIN = """
import os, torch
from p2pstore import P2PStore
from p2pstore.errors import MooncakeError
def attempt(work):
    try:
        work()
        print("nothing was raised", flush=True)
    except MooncakeError as error:
        print(type(error).__name__, error, "|", error.hint, "|", error.exit_code, flush=True)
"""


def test_a_kernel_that_went_wrong_is_told(tmp_path: Path) -> None:
    program = f"""{BEGIN}
with P2PStore("memory://x", node="a") as store:
    store.register("n", bytes(4 << 20))
    room = torch.zeros(4 << 20, dtype=torch.uint8, device="cuda")
    torch.zeros(4, device="cuda")[torch.full((1,), 1 << 20, device="cuda")]
    attempt(lambda: store.get_into("n", room))
os._exit(0)
"""
    said = said_by(program, XDG_STATE_HOME=str(tmp_path))
    assert "GpuFailed GPU 0: cu" in said
    assert "failed with CUDA_ERROR_ASSERT" in said
    assert "end this process" in said


def test_no_gpu_that_is_visible_is_told(tmp_path: Path) -> None:
    program = f"""{BEGIN}
class Array:
    __cuda_array_interface__ = {{"shape": (8,), "typestr": "|u1", "data": (1, False), "version": 3}}
with P2PStore("memory://x", node="a") as store:
    attempt(lambda: store.register("n", Array()))
"""
    said = said_by(program, XDG_STATE_HOME=str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert said.startswith("GpuUnavailable memory of GPUs cannot be used here: no GPU is visible to this process")
    assert "CUDA_VISIBLE_DEVICES" in said
    assert said.rstrip().endswith("| 11")


@pytest.mark.parametrize("ours", [True, False], ids=["by us", "by PyTorch"])
def test_a_forked_child_is_told(tmp_path: Path, ours: bool) -> None:
    """Whoever has used CUDA in the parent: we, or only PyTorch."""
    program = f"""{BEGIN}
room = torch.zeros(8, dtype=torch.uint8, device="cuda")
if {ours}:
    with P2PStore("memory://x", node="a") as store:
        store.register("n", room)
if not os.fork():
    with P2PStore("memory://x", node="b") as store:
        attempt(lambda: store.register("m", room))
    os._exit(0)
os.wait()
"""
    said = said_by(program, XDG_STATE_HOME=str(tmp_path))
    assert said.startswith("GpuUnavailable memory of GPUs cannot be used here: this process was forked"), said
    assert "spawn" in said
