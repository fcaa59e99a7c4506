"""Whatever lies on a GPU is found by one rule, with the stream that must be waited for; the rest is refused in words."""

from __future__ import annotations

import gc
import sys
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from engine.cuda import load
from engine.cuda.device_memory import DeviceMemory, device_memory, on_device
from engine.cuda.fake_driver import FakeDriver
from engine.errors import GpuUnavailable, UsageError
from tests.engine.cuda.gpus import (
    Array,
    Immutable,
    OverDLPack,
    Storage,
    Tensor,
    fake,
    nothing_left,
    torch,
    without_torch,
)

DATA = bytes(range(96))


def lent(source: Any, **options: Any) -> DeviceMemory:
    found = device_memory(source, "it", **options)
    assert isinstance(found, DeviceMemory)
    return found


MAKE = {
    "PyTorch": lambda gpu: Tensor(gpu, DATA),
    "PyTorch, bfloat16": lambda gpu: Tensor(gpu, DATA, size=2, shape=(6, 8)),
    "PyTorch, other order": lambda gpu: Tensor(gpu, DATA, size=2, shape=(6, 8), strides=(1, 6)),
    "PyTorch's storage": lambda gpu: Storage(gpu, DATA),
    "CuPy": lambda gpu: Array(gpu, DATA),
    "CuPy, bfloat16": lambda gpu: Array(gpu, DATA, shape=(48,), typestr="<V2", strides=(2,)),
    "Numba of old": lambda gpu: Array(gpu, DATA, version=2),
    "JAX": lambda gpu: OverDLPack(gpu, DATA, bits=16),
}


@pytest.mark.parametrize("name", MAKE)
def test_it_is_found(gpu: FakeDriver, name: str) -> None:
    source = MAKE[name](gpu)
    assert on_device(source)
    memory = lent(source, writable=True)
    assert (memory.device, memory.address, len(memory), memory.readonly) == (0, source.address, 96, False)
    part = memory[10:20]
    memory.release()
    assert (part.address, len(part)) == (source.address + 10, 10)
    with pytest.raises(ValueError, match="released"):
        memory[:]
    part.release()
    part.release()
    nothing_left(gpu)


@pytest.mark.parametrize("name", MAKE)
def test_it_is_held_as_long_as_a_part_is(gpu: FakeDriver, name: str) -> None:
    source = MAKE[name](gpu)
    gone = weakref.ref(source)
    memory = lent(source)
    part = memory[:1]
    memory.release()
    del source
    gc.collect()
    assert gone() is not None or name == "JAX", "DLPack's capsule holds the memory, not the object"
    part.release()
    gc.collect()
    assert gone() is None


def test_memory_of_the_second_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    with fake(2) as driver:
        for source in (
            Tensor(driver, DATA, device=1),
            Array(driver, DATA, device=1),
            OverDLPack(driver, DATA, device=1),
        ):
            memory = lent(source)
            assert memory.device == 1
            memory.release()
        nothing_left(driver)


def ready(driver: FakeDriver, memory: DeviceMemory) -> bool:
    with driver.on(memory.device):
        return memory.ready == 0 or driver.done(memory.ready)


def test_pytorchs_current_stream_is_waited_for(gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = gpu.new_stream()
    monkeypatch.setitem(sys.modules, "torch", torch(stream))
    tensor = Tensor(gpu, DATA)
    gpu.pause()
    gpu.write(tensor.address, b"x", stream)
    memory = lent(tensor)
    assert not ready(gpu, memory)
    monkeypatch.setitem(sys.modules, "torch", torch(0))  # the default stream, which has nothing to do
    assert not ready(gpu, memory)
    memory.release()
    gpu.resume()
    with gpu.on(0):
        gpu.end_stream(stream)
    nothing_left(gpu)


def test_the_array_interfaces_stream_is_waited_for(gpu: FakeDriver) -> None:
    stream = gpu.new_stream()
    gpu.pause()
    gpu.write(gpu.allocate(b"x"), b"y", stream)
    waits = lent(Array(gpu, DATA, stream=stream))
    does_not = lent(Array(gpu, DATA, stream=None))
    assert not ready(gpu, waits)
    assert ready(gpu, does_not)
    waits.release()
    does_not.release()


def test_dlpack_is_told_a_stream_which_waits(gpu: FakeDriver) -> None:
    source = OverDLPack(gpu, DATA)
    source.pending = gpu.new_stream()
    gpu.pause()
    gpu.write(source.address, b"x", source.pending)
    memory = lent(source)
    assert source.asked > 2, "no default stream, and none that says not to wait"
    assert not ready(gpu, memory)
    memory.release()
    gpu.resume()
    with gpu.on(0):
        gpu.end_stream(source.pending)
    nothing_left(gpu)


REFUSED: dict[str, tuple[Any, str]] = {
    "a slice": (lambda gpu: Tensor(gpu, DATA, shape=(12, 4), strides=(8, 1)), r"not contiguous.*\.contiguous\(\)"),
    "a slice of CuPy": (lambda gpu: Array(gpu, DATA, shape=(48,), strides=(2,)), "not contiguous"),
    "backwards": (lambda gpu: Array(gpu, DATA, strides=(-1,)), "not contiguous"),
    "a mask": (lambda gpu: Array(gpu, DATA, mask=object()), "has a mask"),
    "objects": (lambda gpu: Array(gpu, DATA, typestr="|O8", shape=(12,)), "holds Python objects"),
    "bits": (lambda gpu: OverDLPack(gpu, DATA, bits=4), "does not tell where it lies"),
    "nothing of use": (lambda gpu: SimpleNamespace(__cuda_array_interface__={}), "does not tell where it lies"),
    "a broken interface": (lambda gpu: Array(gpu, DATA, shape=None), "does not tell where it lies"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_words(gpu: FakeDriver, name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(UsageError, match=f"^it.*{words}"):
        device_memory(make(gpu), "it")
    nothing_left(gpu)


def test_what_never_changes_is_served_and_not_received_into(gpu: FakeDriver) -> None:
    constant = Array(gpu, DATA)
    constant.__cuda_array_interface__["data"] = (constant.address, True)
    for source in (Immutable(gpu, DATA), constant):
        lent(source).release()
        with pytest.raises(UsageError, match="it is read-only, and cannot be written to"):
            device_memory(source, "it", writable=True)
    nothing_left(gpu)


def test_no_bytes_are_memory_of_the_host(gpu: FakeDriver) -> None:
    assert device_memory(Tensor(gpu, b""), "it", writable=True) == b""
    assert device_memory(Array(gpu, b"x", shape=(0, 3)), "it") == b""


def test_memory_that_was_freed_is_told(gpu: FakeDriver) -> None:
    tensor = Tensor(gpu, DATA)
    gpu.free(tensor.address)
    with pytest.raises(Exception, match="cuPointerGetAttribute failed with CUDA_ERROR_INVALID_VALUE"):
        device_memory(tensor, "it")


@pytest.mark.parametrize("source", [b"x", bytearray(3), memoryview(b"x"), "x", 5, None, SimpleNamespace(device="cuda")])
def test_what_lies_elsewhere_is_told_apart_without_a_driver(source: Any) -> None:
    assert not on_device(source)
    assert load.in_use() is None


def test_without_cuda_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise GpuUnavailable(detail="it is not there", todo="install it")

    monkeypatch.setattr(load, "Bindings", refuse)
    with fake() as driver:
        array = Array(driver, DATA)
    with pytest.raises(GpuUnavailable, match="memory of GPUs cannot be used here: it is not there"):
        device_memory(array, "it")
