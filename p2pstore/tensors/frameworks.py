"""What tensors are made of: NumPy's arrays or PyTorch's tensors, over memory that is filled before.

Neither package is needed by anything else, so that each is imported here, when it is asked for.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from engine import arguments
from engine.cuda.device_memory import DeviceMemory, device_memory
from engine.cuda.load import cuda
from engine.memory.lent import byte_view
from p2pstore.errors import StorageError, UsageError
from p2pstore.tensors.dtypes import DTYPES
from p2pstore.tensors.header import Tensor
from p2pstore.tensors.plan import Place

CPU = "cpu"
CUDA = "cuda"
WITHOUT_GPU = f"use device={CPU!r}"
"""What to do where PyTorch has no GPU."""

_MEMORY = "the memory of tensors"


class Framework(ABC):
    """Memory of a framework's, and tensors in it."""

    name: ClassVar[str]

    on_gpu = False
    """Whether its memory is a GPU's."""

    @abstractmethod
    def check(self, tensors: Iterable[Tensor]) -> None:
        """Raise ``UsageError`` for a tensor whose type the framework does not have."""

    @abstractmethod
    def area(self, length: int) -> Any:
        """Memory of so many bytes. Raises ``StorageError`` where there is no room."""

    @abstractmethod
    def tensor(self, area: Any, place: Place) -> Any:
        """The tensor at a place in memory: a view of it."""

    def view(self, area: Any) -> memoryview | DeviceMemory:
        """The bytes of an area, writable."""
        return byte_view(area, _MEMORY, writable=True)


class NumPy(Framework):
    """Arrays, of types of ``ml_dtypes`` where NumPy has none."""

    name = "numpy"

    def __init__(self) -> None:
        """Raises ``UsageError`` where NumPy is missing."""
        self._numpy = _package("numpy", "numpy")
        self._types: dict[str, Any] = {}

    def check(self, tensors: Iterable[Tensor]) -> None:
        """See ``Framework.check``."""
        for tensor in tensors:
            if tensor.dtype not in self._types:
                self._types[tensor.dtype] = self._type(tensor)

    def _type(self, tensor: Tensor) -> Any:
        kind = DTYPES[tensor.dtype]
        if not kind.numpy:
            raise _no_type(tensor, "NumPy has no type whose numbers share bytes")
        if not kind.extended:
            return self._numpy.dtype(getattr(self._numpy, kind.numpy))
        try:
            found = getattr(importlib.import_module("ml_dtypes"), kind.numpy)
        except (ImportError, AttributeError):
            detail = (
                f"tensor {tensor.name!r} is of {tensor.dtype}, which NumPy knows by the package ml_dtypes: "
                "pip install -U ml-dtypes; or load it with framework='torch'"
            )
            raise UsageError(detail=detail) from None
        return self._numpy.dtype(found)

    def area(self, length: int) -> Any:
        """See ``Framework.area``."""
        try:
            return self._numpy.empty(length, self._numpy.uint8)
        except (MemoryError, ValueError):
            raise _no_room(length) from None

    def tensor(self, area: Any, place: Place) -> Any:
        """See ``Framework.tensor``."""
        return self._numpy.ndarray(place.shape, self._types[place.dtype], area, place.offset)


class Torch(Framework):
    """PyTorch's tensors, in the host's memory or in a GPU's."""

    name = "torch"

    def __init__(self, device: str = CPU, without_gpu: str = WITHOUT_GPU) -> None:
        """To be called in the caller's thread, whose current stream is the one that what is made belongs to.

        ``without_gpu`` is what to do where PyTorch has no GPU.
        Raises ``UsageError`` where PyTorch is missing, or has no such device, and ``GpuUnavailable``.
        """
        self._torch = _package("torch", "torch", alone=device != CPU)
        self._stream: Any = None
        try:
            self._device = self._torch.device(device)
        except (RuntimeError, TypeError, ValueError):
            wanted = "one that PyTorch knows, such as 'cpu' or 'cuda:0'"
            raise arguments.refuse(device, "the device", wanted) from None
        if self._device.type == CPU:
            return
        if self._device.type != CUDA:
            detail = f"tensors are loaded to the host or to CUDA's GPUs: use device='cpu', and then .to({device!r})"
            raise UsageError(detail=detail)
        cuda()
        try:
            self._stream = self._torch.cuda.current_stream(self._device)
        except (AssertionError, RuntimeError, ValueError) as error:
            first = (str(error) or "it has no GPU").splitlines()[0]
            detail = f"PyTorch cannot use {device!r}: {first}; {self._instead(without_gpu)}"
            raise UsageError(detail=detail) from None
        self.on_gpu = True

    def _instead(self, without_gpu: str) -> str:
        """What to do about a GPU that cannot be used."""
        count = self._torch.cuda.device_count()
        if not count:
            return without_gpu
        if count == 1:
            return f"name the only one that it sees, '{CUDA}:0'"
        return f"name one of the {count} that it sees, from '{CUDA}:0' on"

    def check(self, tensors: Iterable[Tensor]) -> None:
        """See ``Framework.check``."""
        for tensor in tensors:
            name = DTYPES[tensor.dtype].torch
            if not name:
                raise _no_type(tensor, "PyTorch has no such type")
            if not hasattr(self._torch, name):
                version = self._torch.__version__
                raise _no_type(tensor, f"PyTorch {version} has no {name}: pip install -U torch")
            if DTYPES[tensor.dtype].bits < 8 and (not tensor.shape or tensor.shape[-1] % 2):
                raise _no_type(tensor, "PyTorch has two of its numbers in one, and its last dimension is odd")

    def area(self, length: int) -> Any:
        """See ``Framework.area``."""
        try:
            with self._on_stream():
                return self._torch.empty(length, dtype=self._torch.uint8, device=self._device)
        except RuntimeError:
            raise _no_room(length, "memory" if self._stream is None else f"memory of {self._device}") from None

    def view(self, area: Any) -> memoryview | DeviceMemory:
        """See ``Framework.view``. What comes to a GPU waits for what the caller's stream has to do."""
        if self._stream is None:
            return super().view(area)
        with self._on_stream():
            return device_memory(area, _MEMORY, writable=True)

    def _on_stream(self) -> AbstractContextManager[Any]:
        """The caller's stream is the current one, in whatever thread."""
        if self._stream is None:
            return nullcontext()
        found: AbstractContextManager[Any] = self._torch.cuda.stream(self._stream)
        return found

    def tensor(self, area: Any, place: Place) -> Any:
        """See ``Framework.tensor``."""
        kind = DTYPES[place.dtype]
        shape = place.shape if kind.bits >= 8 else (*place.shape[:-1], place.shape[-1] // 2)
        if not place.length:
            return self._torch.empty(shape, dtype=getattr(self._torch, kind.torch), device=self._device)
        flat = area[place.offset : place.offset + place.length]
        return flat.view(getattr(self._torch, kind.torch)).reshape(shape)


def names_gpu(device: str) -> bool:
    """Whether a device is called as GPUs are, whether there is such a one or not."""
    return device.partition(":")[0] == CUDA


def framework_of(name: str, device: str, without_gpu: str = WITHOUT_GPU) -> Framework:
    """The framework of that name, for a device; ``without_gpu`` as of ``Torch``. Raises ``UsageError``."""
    arguments.text(device, "the device")
    if name == NumPy.name:
        if device != CPU:
            detail = f"NumPy's arrays lie in the host's memory: use device='cpu', not {device!r}, or framework='torch'"
            raise UsageError(detail=detail)
        return NumPy()
    if name == Torch.name:
        return Torch(device, without_gpu)
    raise arguments.refuse(name, "the framework", "'torch' or 'numpy'")


def _package(name: str, install: str, *, alone: bool = False) -> Any:
    """A framework's package. ``alone``: what is wanted the other framework cannot do. Raises ``UsageError``."""
    try:
        return importlib.import_module(name)
    except ImportError:
        other = Torch.name if name == NumPy.name else NumPy.name
        instead = "" if alone else f"; or use framework={other!r}"
        detail = f"framework={name!r} needs that package: pip install {install}{instead}"
        raise UsageError(detail=detail) from None


def _no_type(tensor: Tensor, why: str) -> UsageError:
    detail = (
        f"tensor {tensor.name!r} is of {tensor.dtype}: {why}; leave it out with include=, "
        "or bring it as a file with 'mooncake get --tensors'"
    )
    return UsageError(detail=detail)


def _no_room(length: int, where: str = "memory") -> StorageError:
    return StorageError(path=where, detail=f"cannot allocate memory: tensors take {length} bytes")
