"""CUDA's driver by way of NVIDIA's cuda-bindings, of version 12 or 13: nothing is compiled here.

One call is made past it. Up to 13.3.1 at least, cuda-bindings answers 0 for the GPU of any memory
(github.com/NVIDIA/cuda-python/issues/2928), so the library that it has loaded is asked for that.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.cuda.driver import INVALID_CONTEXT, INVALID_VALUE, PEER_ENABLED, Exported, failed
from engine.errors import GpuFailed, GpuUnavailable, MooncakeError

MODULES = ("cuda.bindings.driver", "cuda.cuda")
"""Where the calls are: from 12.6.1 on, and before that."""

_PORTABLE = 1
"""Memory that is pinned for all GPUs."""
_LAZY_PEER_ACCESS = 1
"""Opened memory may lie on another GPU, which is then made a peer."""
_NO_TIMING = 2
"""An event that does not note when it was done is quicker."""
_NON_BLOCKING = 1
"""A stream that the default stream neither waits for nor is waited for by: who must wait for whom is said by events."""
_ORDINAL = 9
"""``CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL``."""
_LIBRARY = "libcuda.so.1"
_PCI_ADDRESS_BYTES = 32
"""Of ``DOMAIN:BUS:DEVICE.FUNCTION`` and a NUL; 13 are used."""

_INSTALL = "install it with pip install 'mooncake-cli[cuda]', or copy the tensor to the host first (.cpu())"
_DRIVER = "see what 'nvidia-smi' says here, or copy the tensor to the host first (.cpu())"
_NO_DEVICE = "see CUDA_VISIBLE_DEVICES, and what the container or job was given; 'nvidia-smi' lists what there is"
_FORKED = "start the process with multiprocessing's 'spawn' or 'forkserver' instead of 'fork'"


class Bindings:
    """The driver of this machine; see ``Driver``."""

    def __init__(self, module: Any = None, library: Any = None) -> None:
        """``module`` is cuda-bindings', and ``library`` NVIDIA's; by default those that are installed.

        Raises ``GpuUnavailable``.
        """
        self._cuda = module if module is not None else _found()
        self._library = library
        self._relaxed = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self._count = 0
        self._contexts: dict[int, Any] = {}
        self._here = threading.local()
        self._lock = threading.Lock()
        self._begin()

    def count(self) -> int:
        """See ``Driver.count``."""
        return self._count

    def pci_address(self, device: int) -> str:
        """See ``Driver.pci_address``."""
        found = self._call("cuDeviceGetPCIBusId", _PCI_ADDRESS_BYTES, self._call("cuDeviceGet", device))
        return str(bytes(found).partition(b"\0")[0].decode()).lower()

    def reaches(self, device: int, other: int) -> bool:
        """See ``Driver.reaches``."""
        one, two = self._call("cuDeviceGet", device), self._call("cuDeviceGet", other)
        return bool(self._call("cuDeviceCanAccessPeer", one, two))

    def device_of(self, address: int) -> int:
        """See ``Driver.device_of``."""
        code, found = self._asked(address)
        if getattr(code, "name", "") in {INVALID_CONTEXT, INVALID_VALUE}:
            # Of a thread that CUDA does not know yet; or the driver wants the memory's own context.
            for device in range(self._count):
                if self._active(device):
                    with self.on(device):
                        again, found = self._asked(address)
                    if not int(again):
                        return found
        self._check("cuPointerGetAttribute", code)
        return found

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        """See ``Driver.on``."""
        before, self._here.device = self._device, device
        try:
            # Else pinning memory or asking an event would spoil a CUDA graph that another thread captures meanwhile.
            mode = self._call("cuThreadExchangeStreamCaptureMode", self._relaxed)
            try:
                self._call("cuCtxPushCurrent", self._context(device))
                try:
                    yield
                finally:
                    self._cuda.cuCtxPopCurrent()
            finally:
                self._cuda.cuThreadExchangeStreamCaptureMode(mode)
        finally:
            self._here.device = before

    def pin(self, length: int) -> int:
        """See ``Driver.pin``."""
        return int(self._call("cuMemHostAlloc", length, _PORTABLE))

    def unpin(self, address: int) -> None:
        """See ``Driver.unpin``."""
        self._call("cuMemFreeHost", address)

    def register(self, address: int, length: int) -> None:
        """See ``Driver.register``."""
        self._call("cuMemHostRegister", address, length, _PORTABLE)

    def unregister(self, address: int) -> None:
        """See ``Driver.unregister``."""
        self._call("cuMemHostUnregister", address)

    def stream(self) -> int:
        """See ``Driver.stream``."""
        return int(self._call("cuStreamCreate", _NON_BLOCKING))

    def end_stream(self, stream: int) -> None:
        """See ``Driver.end_stream``."""
        self._call("cuStreamDestroy", stream)

    def to_device(self, address: int, source: int, length: int, stream: int) -> None:
        """See ``Driver.to_device``."""
        self._call("cuMemcpyHtoDAsync", address, source, length, stream)

    def rows_to_device(self, address: int, source: int, row: int, stride: int, rows: int, stream: int) -> None:
        """See ``Driver.rows_to_device``."""
        copy = self._cuda.CUDA_MEMCPY2D()
        copy.srcMemoryType = self._cuda.CUmemorytype.CU_MEMORYTYPE_HOST
        copy.srcHost, copy.srcPitch = source, stride
        copy.dstMemoryType = self._cuda.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.dstDevice, copy.dstPitch = address, row
        copy.WidthInBytes, copy.Height = row, rows
        self._call("cuMemcpy2DAsync", copy, stream)

    def to_host(self, target: int, address: int, length: int, stream: int) -> None:
        """See ``Driver.to_host``."""
        self._call("cuMemcpyDtoHAsync", target, address, length, stream)

    def memory(self, length: int) -> int:
        """See ``Driver.memory``."""
        return int(self._call("cuMemAlloc", length))

    def end_memory(self, address: int) -> None:
        """See ``Driver.end_memory``."""
        self._call("cuMemFree", address)

    def open_peer(self, other: int) -> None:
        """See ``Driver.open_peer``."""
        try:
            self._call("cuCtxEnablePeerAccess", self._context(other), 0)
        except GpuFailed as error:
            if error.fields["code"] != PEER_ENABLED:  # by PyTorch, say
                raise

    def to_peer(self, address: int, source: int, length: int, stream: int, device: int) -> None:
        """See ``Driver.to_peer``."""
        if device == self._device:
            self._call("cuMemcpyDtoDAsync", address, source, length, stream)
            return
        # With contexts, and not as a copy within one space of addresses: only so may it be memory that PyTorch has
        # mapped itself (expandable segments).
        there, here = self._context(device), self._context(self._device)
        self._call("cuMemcpyPeerAsync", address, there, source, here, length, stream)

    def export(self, address: int) -> Exported:
        """See ``Driver.export``."""
        base, _ = self._both("cuMemGetAddressRange", address)
        handle = self._call("cuIpcGetMemHandle", base)
        return Exported(bytes(handle.reserved), address - int(base))

    def open_exported(self, handle: bytes) -> int:
        """See ``Driver.open_exported``."""
        made = self._cuda.CUipcMemHandle()
        made.reserved = handle
        return int(self._call("cuIpcOpenMemHandle", made, _LAZY_PEER_ACCESS))

    def close_exported(self, address: int) -> None:
        """See ``Driver.close_exported``."""
        self._call("cuIpcCloseMemHandle", address)

    def event(self) -> int:
        """See ``Driver.event``."""
        return int(self._call("cuEventCreate", _NO_TIMING))

    def end_event(self, event: int) -> None:
        """See ``Driver.end_event``."""
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """See ``Driver.record``."""
        self._call("cuEventRecord", event, stream)

    def done(self, event: int) -> bool:
        """See ``Driver.done``."""
        (code,) = self._cuda.cuEventQuery(event)
        if getattr(code, "name", "") == "CUDA_ERROR_NOT_READY":
            return False
        self._check("cuEventQuery", code)
        return True

    def wait(self, stream: int, event: int) -> None:
        """See ``Driver.wait``."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    @property
    def _device(self) -> int:
        return int(getattr(self._here, "device", 0))

    def _begin(self) -> None:
        """Initialise CUDA, and see that there is a GPU. Raises ``GpuUnavailable``."""
        try:
            self._call("cuInit", 0)
            count = int(self._call("cuDeviceGetCount"))
        except MooncakeError as error:
            code = error.fields["code"]
            if code == "CUDA_ERROR_NO_DEVICE":
                raise _no_device() from None
            if code == "CUDA_ERROR_NOT_INITIALIZED":
                raise forked() from None
            detail = f"CUDA cannot be initialised: {code}{error.fields['detail']}"
            raise GpuUnavailable(detail=detail, todo=_DRIVER) from None
        except RuntimeError as error:  # what cuda-bindings says of a library that is not there
            detail = f"NVIDIA's driver is not installed here ({error})"
            raise GpuUnavailable(detail=detail, todo=_DRIVER) from None
        if not count:
            raise _no_device()
        self._count = count
        if self._library is None:
            try:
                self._library = ctypes.CDLL(_LIBRARY)  # which is loaded by now
            except OSError as error:
                raise GpuUnavailable(detail=f"NVIDIA's driver does not load ({error})", todo=_DRIVER) from None

    def _asked(self, address: int) -> tuple[Any, int]:
        """The driver's code, and on which GPU the memory lies."""
        found = ctypes.c_int(0)
        code = self._library.cuPointerGetAttribute(
            ctypes.byref(found), ctypes.c_int(_ORDINAL), ctypes.c_uint64(address)
        )
        return self._cuda.CUresult(code), found.value

    def _active(self, device: int) -> bool:
        """Whether this process uses a GPU already."""
        code, _, active = self._cuda.cuDevicePrimaryCtxGetState(self._call("cuDeviceGet", device))
        self._check("cuDevicePrimaryCtxGetState", code)
        return bool(active)

    def _context(self, device: int) -> Any:
        """The context that all libraries of the process share, which stays for as long as the process."""
        found = self._contexts.get(device)
        if found is not None:
            return found
        with self._lock:
            if device not in self._contexts:
                self._contexts[device] = self._call("cuDevicePrimaryCtxRetain", self._call("cuDeviceGet", device))
            return self._contexts[device]

    def _call(self, name: str, *args: Any) -> Any:
        code, *found = getattr(self._cuda, name)(*args)
        self._check(name, code)
        return found[0] if found else None

    def _both(self, name: str, *args: Any) -> tuple[Any, Any]:
        code, one, two = getattr(self._cuda, name)(*args)
        self._check(name, code)
        return one, two

    def _check(self, name: str, code: Any) -> None:
        if not int(code):
            return
        _, text = self._cuda.cuGetErrorString(code)
        detail = text.decode() if isinstance(text, bytes) else str(text or "")
        raise failed(name, self._device, getattr(code, "name", str(code)), detail)


def forked() -> GpuUnavailable:
    """What a child is told whose parent has used CUDA."""
    detail = "this process was forked from one that uses CUDA, which does not survive a fork"
    return GpuUnavailable(detail=detail, todo=_FORKED)


def _no_device() -> GpuUnavailable:
    return GpuUnavailable(detail="no GPU is visible to this process", todo=_NO_DEVICE)


def _found() -> Any:
    """The installed module. Raises ``GpuUnavailable``."""
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            raise GpuUnavailable(detail=f"the package cuda-bindings does not load: {error}", todo=_INSTALL) from None
    raise GpuUnavailable(detail="the package cuda-bindings is not installed", todo=_INSTALL)
