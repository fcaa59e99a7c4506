"""The calls of cuda-bindings, on a stand-in for its module: codes, handles and what is said of a driver that is not there.

``tests/gpu`` makes the same calls on a real GPU.
"""

from __future__ import annotations

import builtins
import enum
import importlib
import threading
from typing import Any

import pytest

from engine.cuda import bindings
from engine.cuda.bindings import Bindings
from engine.errors import GpuFailed, GpuUnavailable


class Code(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_INITIALIZED = 3
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED = 704
    CUDA_ERROR_TOO_MANY_PEERS = 711
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803


class Mode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_RELAXED = 2


class Library:
    """As ``libcuda.so.1``, which is asked where memory lies: codes in turn, and what it says."""

    def __init__(self, *codes: int, device: int = 1) -> None:
        self.codes = list(codes)
        self.device = device
        self.asked: list[int] = []

    def cuPointerGetAttribute(self, found: Any, which: Any, address: Any) -> int:
        assert which.value == 9
        self.asked.append(address.value)
        code = self.codes.pop(0) if self.codes else 0
        if not code:
            found._obj.value = self.device
        return code


class Handle:
    """As cuda-bindings' own: an object that knows its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


class Memory:
    """As ``CUipcMemHandle``."""

    reserved = b""


class Module:
    """As ``cuda.bindings.driver``: every call returns a tuple whose first part is a code."""

    CUresult = Code
    CUstreamCaptureMode = Mode
    CUipcMemHandle = Memory

    def __init__(self, **answers: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.mode = Mode.CU_STREAM_CAPTURE_MODE_GLOBAL
        self.modes: list[Mode] = []
        """Those in which calls were made that may spoil somebody's graph."""
        self.stack = threading.local()
        self.contexts: dict[int, Handle] = {}
        self.answers = {
            "cuInit": (Code(0),), "cuDeviceGetCount": (Code(0), 2), "cuMemHostAlloc": (Code(0), 0x7000),
            "cuStreamCreate": (Code(0), Handle(11)), "cuEventCreate": (Code(0), Handle(12)),
            "cuEventQuery": (Code(0),), "cuDevicePrimaryCtxGetState": (Code(0), 0, 1),
            **answers,
        }  # fmt: skip

    def cuGetErrorString(self, code: Code) -> tuple[Code, bytes]:
        return Code(0), code.name.removeprefix("CUDA_ERROR_").lower().encode()

    def cuThreadExchangeStreamCaptureMode(self, mode: Mode) -> tuple[Code, Mode]:
        before, self.mode = self.mode, mode
        return Code(0), before

    def cuDeviceGet(self, device: int) -> tuple[Code, Handle]:
        return Code(0), Handle(100 + device)

    def cuDevicePrimaryCtxRetain(self, device: Handle) -> tuple[Code, Handle]:
        self.calls.append(("retain", int(device)))
        made = self.contexts[int(device) - 100] = Handle(1000 + int(device))
        return Code(0), made

    def cuCtxPushCurrent(self, context: Handle) -> tuple[Code]:
        self.calls.append(("push", int(context)))
        return (Code(0),)

    def cuCtxPopCurrent(self) -> tuple[Code, Handle]:
        self.calls.append(("pop",))
        return Code(0), Handle(0)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*args: Any) -> tuple[Any, ...]:
            self.calls.append((name, *args))
            self.modes.append(self.mode)
            answer = self.answers.get(name, (Code(0),))
            if isinstance(answer, list):
                answer = answer.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def test_calls_concern_the_gpu_that_was_named() -> None:
    module = Module()
    driver = Bindings(module, Library())
    module.calls.clear()
    with driver.on(1):
        stream, event, pinned = driver.stream(), driver.event(), driver.pin(4096)
        driver.to_device(0x10, pinned, 8, stream)
        driver.to_host(pinned, 0x20, 8, stream)
        driver.record(event, stream)
        driver.wait(stream, event)
        assert driver.done(event)
        driver.end_event(event)
        driver.end_stream(stream)
        driver.unpin(pinned)
    assert (stream, event, pinned) == (11, 12, 0x7000)
    assert module.calls == [
        ("retain", 101), ("push", 1101),
        ("cuStreamCreate", 1), ("cuEventCreate", 2), ("cuMemHostAlloc", 4096, 1),
        ("cuMemcpyHtoDAsync", 0x10, 0x7000, 8, 11), ("cuMemcpyDtoHAsync", 0x7000, 0x20, 8, 11),
        ("cuEventRecord", 12, 11), ("cuStreamWaitEvent", 11, 12, 0), ("cuEventQuery", 12),
        ("cuEventDestroy", 12), ("cuStreamDestroy", 11), ("cuMemFreeHost", 0x7000),
        ("pop",),
    ]  # fmt: skip
    with driver.on(1):
        pass
    assert module.calls.count(("retain", 101)) == 1


def test_copies_between_gpus_name_both_contexts() -> None:
    """So that they are right for memory that PyTorch maps itself; within a GPU there is but one."""
    module = Module(cuMemAlloc=(Code(0), Handle(0x9000)))
    driver = Bindings(module, Library())
    with driver.on(1):
        room = driver.memory(64)
        driver.to_peer(0x10, room, 8, 11, 0)
        driver.to_peer(0x10, room, 8, 11, 1)
        driver.end_memory(room)
    assert [call for call in module.calls if call[0] in {"cuMemAlloc", "cuMemcpyPeerAsync", "cuMemcpyDtoDAsync", "cuMemFree"}] == [
        ("cuMemAlloc", 64), ("cuMemcpyPeerAsync", 0x10, module.contexts[0], 0x9000, module.contexts[1], 8, 11),
        ("cuMemcpyDtoDAsync", 0x10, 0x9000, 8, 11), ("cuMemFree", 0x9000),
    ]  # fmt: skip
    assert module.calls.count(("retain", 100)) == module.calls.count(("retain", 101)) == 1


def test_access_that_the_program_has_opened_is_open() -> None:
    module = Module(cuCtxEnablePeerAccess=[(Code(0),), (Code(704),), (Code(711),)])
    driver = Bindings(module, Library())
    with driver.on(0):
        driver.open_peer(1)
        driver.open_peer(1)
        with pytest.raises(GpuFailed, match="cuCtxEnablePeerAccess failed with CUDA_ERROR_TOO_MANY_PEERS"):
            driver.open_peer(1)
    assert ("cuCtxEnablePeerAccess", module.contexts[1], 0) in module.calls


def test_what_gpus_there_are() -> None:
    module = Module(
        cuDeviceCanAccessPeer=[(Code(0), 1), (Code(0), 0)], cuDeviceGetPCIBusId=(Code(0), b"0000:1B:00.0\0xx")
    )
    driver = Bindings(module, Library())
    assert driver.count() == 2
    assert driver.pci_address(1) == "0000:1b:00.0"
    assert [driver.reaches(0, 1), driver.reaches(1, 0)] == [True, False]


def test_what_was_set_comes_back_after_an_error() -> None:
    module = Module(cuMemcpyHtoDAsync=(Code(1),))
    driver = Bindings(module, Library())
    with (
        pytest.raises(
            GpuFailed, match=r"GPU 1: cuMemcpyHtoDAsync failed with CUDA_ERROR_INVALID_VALUE \(invalid_value\)"
        ),
        driver.on(1),
    ):
        driver.to_device(1, 2, 3, 4)
    assert module.calls[-1] == ("pop",)


def test_a_graph_that_another_thread_captures_is_not_spoilt() -> None:
    """As CUDA has it, of calls that are made in the mode that each thread begins with."""
    module = Module(cuEventQuery=(Code(1),))
    driver = Bindings(module, Library())
    module.modes.clear()
    with driver.on(1):
        driver.pin(4096)
        with driver.on(0):
            driver.event()
        with pytest.raises(GpuFailed, match="cuEventQuery"), driver.on(0):
            driver.done(12)
        driver.pin(4096)
    assert module.modes == [Mode.CU_STREAM_CAPTURE_MODE_RELAXED] * 4
    assert module.mode is Mode.CU_STREAM_CAPTURE_MODE_GLOBAL


@pytest.mark.parametrize("call", ["cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent"])
def test_a_gpu_that_cannot_be_turned_to_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Else one would look for who has the memory of another."""
    module = Module()
    driver = Bindings(module, Library())
    with monkeypatch.context() as patch:
        patch.setattr(module, call, lambda _: (Code(2), None))
        with pytest.raises(GpuFailed, match=f"GPU 1: {call} failed with CUDA_ERROR_OUT_OF_MEMORY"), driver.on(1):
            pass
    assert ("pop",) not in module.calls, "nothing was pushed"
    module.answers["cuEventQuery"] = (Code(1),)
    with driver.on(0), pytest.raises(GpuFailed, match="GPU 0: cuEventQuery"):
        driver.done(1)


def test_an_event_that_is_not_done() -> None:
    driver = Bindings(Module(cuEventQuery=[(Code(600),), (Code(0),), (Code(1),)]), Library())
    with driver.on(0):
        assert not driver.done(1)
        assert driver.done(1)
        with pytest.raises(GpuFailed, match="cuEventQuery"):
            driver.done(1)


def test_where_memory_lies_is_asked_of_a_thread_that_cuda_does_not_know() -> None:
    module, library = Module(), Library(201, 0)
    assert Bindings(module, library).device_of(0x99) == 1
    assert ("push", 1100) in module.calls
    assert library.asked == [0x99, 0x99]


def test_where_memory_lies_is_asked_beside_each_gpu_that_is_in_use() -> None:
    module = Module(cuDevicePrimaryCtxGetState=[(Code(0), 0, 0), (Code(0), 0, 1)])
    assert Bindings(module, Library(1, 0)).device_of(0x99) == 1
    assert [call for call in module.calls if call[0] == "push"] == [("push", 1101)]
    with pytest.raises(GpuFailed, match="cuPointerGetAttribute failed with CUDA_ERROR_INVALID_VALUE"):
        Bindings(Module(), Library(1, 1, 1)).device_of(0x99)


@pytest.mark.parametrize(
    ("answers", "words", "hint"),
    [
        ({"cuInit": (Code(100),)}, "no GPU is visible to this process", "CUDA_VISIBLE_DEVICES"),
        ({"cuDeviceGetCount": (Code(0), 0)}, "no GPU is visible to this process", "nvidia-smi"),
        ({"cuInit": (Code(3),)}, "forked from one that uses CUDA", "spawn"),
        ({"cuInit": (Code(803),)}, "initialised: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "nvidia-smi"),
        (
            {"cuInit": RuntimeError("Failed to dlopen libcuda.so.1")},
            "driver is not installed here.*dlopen",
            "nvidia-smi",
        ),
    ],
)
def test_a_driver_that_cannot_be_used_is_described(answers: dict[str, Any], words: str, hint: str) -> None:
    with pytest.raises(GpuUnavailable, match=words) as caught:
        Bindings(Module(**answers))
    assert hint in caught.value.hint


def test_the_package_of_either_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Module()

    def only(wanted: str) -> Any:
        def find(name: str) -> Any:
            if name == wanted:
                return module
            raise ModuleNotFoundError(name)

        return find

    for name in bindings.MODULES:
        monkeypatch.setattr(importlib, "import_module", only(name))
        assert Bindings(library=Library())._cuda is module
    monkeypatch.setattr(importlib, "import_module", only(""))
    with pytest.raises(GpuUnavailable, match="cuda-bindings is not installed") as caught:
        Bindings()
    assert "mooncake-cli[cuda]" in caught.value.hint

    def broken(name: str) -> Any:
        raise builtins.ImportError("GLIBC_2.38 not found")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(GpuUnavailable, match="does not load: GLIBC"):
        Bindings()


def test_the_installed_package_has_every_call() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="pip install cuda-bindings")
    for name in (
        "cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent", "cuCtxPopCurrent",
        "cuDevicePrimaryCtxGetState", "cuMemHostAlloc", "cuMemFreeHost", "cuStreamCreate", "cuStreamDestroy", "cuEventCreate",
        "cuEventDestroy", "cuEventRecord", "cuEventQuery", "cuStreamWaitEvent", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync",
        "cuGetErrorString", "cuThreadExchangeStreamCaptureMode", "cuMemHostRegister", "cuMemHostUnregister",
        "cuMemGetAddressRange", "cuIpcGetMemHandle", "cuIpcOpenMemHandle", "cuIpcCloseMemHandle",
    ):  # fmt: skip
        assert callable(getattr(driver, name)), name
    assert driver.CUresult.CUDA_ERROR_NOT_READY.name == "CUDA_ERROR_NOT_READY"
    assert int(driver.CUresult.CUDA_SUCCESS) == 0
    assert driver.CU_MEMHOSTALLOC_PORTABLE == bindings._PORTABLE
    assert driver.CU_MEMHOSTREGISTER_PORTABLE == bindings._PORTABLE
    assert int(driver.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) == bindings._LAZY_PEER_ACCESS
    handle = driver.CUipcMemHandle()
    handle.reserved = bytes(range(100, 164))
    assert bytes(handle.reserved) == bytes(range(100, 164))
    assert int(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING) == bindings._NO_TIMING
    assert int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING) == bindings._NON_BLOCKING
    assert int(driver.CUstream(5)) == 5
    assert int(driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED) == Mode.CU_STREAM_CAPTURE_MODE_RELAXED
    assert int(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) == bindings._ORDINAL
    assert driver.CUresult(1).name == "CUDA_ERROR_INVALID_VALUE"


def test_memory_of_others_is_exported_and_opened() -> None:
    handle = Memory()
    handle.reserved = bytes(range(64))
    module = Module(
        cuMemGetAddressRange=(Code(0), Handle(0x5000), 4096),
        cuIpcGetMemHandle=(Code(0), handle),
        cuIpcOpenMemHandle=(Code(0), Handle(0x9000)),
    )
    driver = Bindings(module, Library())
    with driver.on(1):
        assert driver.export(0x5010) == (bytes(range(64)), 0x10)
        assert driver.open_exported(b"h" * 64) == 0x9000
        driver.close_exported(0x9000)
        driver.register(0x7000, 8192)
        driver.unregister(0x7000)
    asked = {call[0]: call[1:] for call in module.calls}
    assert int(asked["cuIpcGetMemHandle"][0]) == 0x5000, "all that was allocated together"
    made, flags = asked["cuIpcOpenMemHandle"]
    assert (made.reserved, flags) == (b"h" * 64, 1)
    assert asked["cuIpcCloseMemHandle"] == (0x9000,)
    assert asked["cuMemHostRegister"] == (0x7000, 8192, 1)
    assert asked["cuMemHostUnregister"] == (0x7000,)
