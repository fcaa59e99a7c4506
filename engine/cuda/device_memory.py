"""Memory of a GPU that a program hands over: where it lies, and what must be over before it is read or written.

Found in this order; nothing of a tensor library is imported:

1. ``data_ptr`` and ``device``: PyTorch, with every type, parameters included. Its current stream is asked for.
2. ``__cuda_array_interface__`` of version 3, which names a stream: CuPy, Numba.
3. DLPack: JAX, and whatever else. It is told a stream of ours, and lets that wait.
4. ``__cuda_array_interface__`` of an older version, which says nothing of streams: the default stream counts.

The bytes must lie together, as in the host's memory (``engine.memory.lent``).
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import threading
from typing import Any

from engine.cuda.driver import LEGACY_STREAM, recorded
from engine.cuda.load import Cuda, cuda
from engine.errors import GpuFailed, MooncakeError, UsageError
from engine.memory.lent import (
    CUDA,
    IMMUTABLE,
    OPAQUE,
    attribute,
    check_dense,
    dlpack_tensor,
    is_storage,
    is_tensor,
    refuse_missing,
    refuse_objects,
    refuse_tensor,
    storage_place,
    tensor_place,
)

WITH_STREAM = 3
"""The version from which on the array interface says what to wait for."""

_TYPE = re.compile(r"[<>|=]([A-Za-z])([0-9]+)")


class _Loan:
    """What all parts of one memory share: who owns it, and the event that it is ready at. Ends with the last part."""

    def __init__(self, cuda_: Cuda, device: int, owner: object, ready: int) -> None:
        self.cuda = cuda_
        self.device = device
        self.ready = ready
        self._owner: object = owner
        self._parts = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        with self._lock:
            self._parts += 1

    def end(self) -> None:
        with self._lock:
            self._parts -= 1
            if self._parts:
                return
            self._owner = None
            ready, self.ready = self.ready, 0
        if ready:
            try:
                with self.cuda.driver.on(self.device):
                    self.cuda.driver.end_event(ready)
            except GpuFailed:  # a GPU that is lost has no events
                pass


class DeviceMemory:
    """``len`` bytes at ``address`` of GPU ``device``. Like a view of bytes: parts are slices, and each is released."""

    __slots__ = ("_loan", "address", "device", "length", "readonly")

    def __init__(self, loan: _Loan, address: int, length: int, *, readonly: bool) -> None:
        loan.begin()
        self._loan: _Loan | None = loan
        self.device = loan.device
        self.address = address
        self.length = length
        self.readonly = readonly

    @property
    def cuda(self) -> Cuda:
        """The driver by which it was found. Raises ``ValueError`` once it is released."""
        return self._held().cuda

    @property
    def ready(self) -> int:
        """The event after which it may be read and written; 0 where that is so from the beginning. Raises as above."""
        return self._held().ready

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> DeviceMemory:
        """A part, which lives by itself. Raises ``ValueError`` once this one is released."""
        start, stop, step = part.indices(self.length)
        if step != 1:
            raise ValueError("memory of a GPU has parts in one piece")
        return DeviceMemory(self._held(), self.address + start, max(0, stop - start), readonly=self.readonly)

    def release(self) -> None:
        """Let the memory go. Twice is harmless."""
        loan, self._loan = self._loan, None
        if loan is not None:
            loan.end()

    def _held(self) -> _Loan:
        if self._loan is None:
            raise ValueError("the memory was released")
        return self._loan


def on_device(source: Any) -> bool:
    """Whether an object says that it lies on one of CUDA's devices. Loads nothing."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return False
    if is_tensor(source) or is_storage(source):
        return bool(attribute(attribute(source, "device"), "type") == "cuda")
    if attribute(source, "__cuda_array_interface__") is not None:
        return True
    asked = attribute(source, "__dlpack_device__")
    try:
        return callable(asked) and int(asked()[0]) == CUDA
    except Exception:  # noqa: BLE001 - whatever a library says that it cannot
        return False


def device_memory(source: Any, what: str, *, writable: bool = False) -> DeviceMemory | memoryview:
    """The memory of an object that is ``on_device``; without any bytes, an empty view. ``what`` is its name in errors.

    To be called in the thread that has worked with the object, whose current stream counts. Raises ``UsageError``
    as ``byte_view``, ``GpuUnavailable`` and ``GpuFailed``.
    """
    try:
        for take in (_tensor, _array_interface, _dlpack, _old_array_interface):
            found = take(source, what)
            if found is not None:
                break
    except MooncakeError:
        raise
    except Exception as error:  # noqa: BLE001 - what a library says of its own object
        raise UsageError(detail=f"{what} does not tell where it lies: {error}") from None
    if found is None:
        kind = type(source).__name__
        detail = f"{what}, of type {kind}, does not tell where it lies; give a view of its bytes (.view(uint8))"
        raise UsageError(detail=detail)
    if writable and (found.readonly or type(source).__module__.partition(".")[0] in IMMUTABLE):
        found.release()
        raise UsageError(detail=f"{what} is read-only, and cannot be written to")
    if not found.length:
        found.release()
        return memoryview(bytearray())
    return found


def _tensor(source: Any, what: str) -> DeviceMemory | None:
    if is_tensor(source):
        refuse_tensor(source, what)
        place = tensor_place(source, what)
    else:
        place = storage_place(source, what)
    if place is None:
        return None
    loaded = cuda()
    torch = sys.modules.get("torch")
    stream = LEGACY_STREAM
    if torch is not None:
        stream = int(torch.cuda.current_stream(source.device).cuda_stream) or LEGACY_STREAM
    return _lent(loaded, *place, source, stream, what, readonly=False, device=attribute(source.device, "index"))


def _array_interface(source: Any, what: str, *, least: int = WITH_STREAM) -> DeviceMemory | None:
    found = attribute(source, "__cuda_array_interface__")
    if not isinstance(found, dict) or int(found.get("version", 0)) < least:
        return None
    kind = _TYPE.fullmatch(str(found.get("typestr")))
    if kind is None or kind[1] == "t":
        return None
    if kind[1] == "O":
        refuse_objects(what)
    if found.get("mask") is not None:
        raise UsageError(detail=f"{what} has a mask, which would not travel; give its data and its mask by name")
    size, shape, strides = int(kind[2]), tuple(found["shape"]), found.get("strides")
    address, readonly = found["data"]
    if strides is not None and math.prod(shape):
        check_dense(shape, strides, size, what)
    stream = found.get("stream")
    if stream is None and least < WITH_STREAM:
        stream = LEGACY_STREAM
    return _lent(cuda(), int(address), math.prod(shape) * size, source, stream or 0, what, readonly=bool(readonly))


def _old_array_interface(source: Any, what: str) -> DeviceMemory | None:
    return _array_interface(source, what, least=0)


def _dlpack(source: Any, what: str) -> DeviceMemory | None:
    loaded, driver = cuda(), cuda().driver
    asked = attribute(source, "__dlpack_device__")
    if not callable(asked) or attribute(source, "__dlpack__") is None:
        return None
    device = int(asked()[1])
    with driver.on(device):
        stream = driver.stream()
        try:
            capsule = _exported(source, stream)
            found = dlpack_tensor(capsule)
            if found is None:
                return None
            tensor, readonly = found
            size, rest = divmod(tensor.bits * tensor.lanes, 8)
            if rest:
                return None
            if tensor.code == OPAQUE:
                refuse_objects(what)
            shape = tensor.shape[: tensor.ndim] if tensor.ndim else []
            length = math.prod(shape) * size
            if tensor.strides and tensor.ndim and length:
                check_dense(shape, [each * size for each in tensor.strides[: tensor.ndim]], size, what)
            address = (tensor.data or 0) + tensor.byte_offset
            return _lent(loaded, address, length, capsule, stream, what, readonly=readonly, device=device)
        finally:
            driver.end_stream(stream)


def _exported(source: Any, stream: int) -> Any:
    """DLPack's capsule, whose memory is ready once all is done that is in ``stream``; None where there is none."""
    try:
        try:
            return source.__dlpack__(stream=stream, max_version=(1, 0), copy=False)
        except TypeError:  # an older one
            return source.__dlpack__(stream=stream)
    except Exception:  # noqa: BLE001 - a type that DLPack does not know, say
        return None


def _lent(
    loaded: Cuda,
    address: int,
    length: int,
    owner: object,
    stream: int,
    what: str,
    *,
    readonly: bool,
    device: int | None = None,
) -> DeviceMemory:
    """Memory at an address that is ready once all is done that is in ``stream``; 0 means that it is ready now.

    ``device`` is the GPU that its library says. The driver is asked all the same: memory that was freed lies on none.
    """
    if not length:
        return DeviceMemory(_Loan(loaded, 0, None, 0), 0, 0, readonly=readonly)
    if not address:
        refuse_missing(what)
    driver, ready = loaded.driver, 0
    with driver.on(device) if device is not None else contextlib.nullcontext():
        device = driver.device_of(address)
    if stream:
        with driver.on(device):
            ready = recorded(driver, stream)
    return DeviceMemory(_Loan(loaded, device, owner, ready), address, length, readonly=readonly)
