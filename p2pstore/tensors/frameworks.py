"""What tensors are made of: NumPy's arrays or PyTorch's tensors, over memory that is filled before.

Neither package is needed by anything else, so that each is imported here, when it is asked for.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from engine import arguments
from engine.memory.lent import byte_view
from p2pstore.errors import StorageError, UsageError
from p2pstore.tensors.dtypes import DTYPES
from p2pstore.tensors.header import Tensor
from p2pstore.tensors.plan import Place

CPU = "cpu"


class Framework(ABC):
    """Memory of a framework's, and tensors in it."""

    name: ClassVar[str]

    @abstractmethod
    def check(self, tensors: Iterable[Tensor]) -> None:
        """Raise ``UsageError`` for a tensor whose type the framework does not have."""

    @abstractmethod
    def area(self, length: int) -> Any:
        """Memory of so many bytes. Raises ``StorageError`` where there is no room."""

    @abstractmethod
    def tensor(self, area: Any, place: Place) -> Any:
        """The tensor at a place in memory: a view of it."""

    def view(self, area: Any) -> memoryview:
        """The bytes of an area, writable."""
        return byte_view(area, "the memory of tensors", writable=True)


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
    """PyTorch's tensors, in the host's memory."""

    name = "torch"

    def __init__(self, device: str = CPU) -> None:
        """Raises ``UsageError`` where PyTorch is missing, or knows no such device."""
        self._torch = _package("torch", "torch")
        try:
            found = self._torch.device(device)
        except (RuntimeError, TypeError, ValueError):
            raise arguments.refuse(device, "the device", "one that PyTorch knows, such as 'cpu'") from None
        if found.type != CPU:
            detail = f"tensors are loaded to the host's memory: use device='cpu', and then .to({device!r})"
            raise UsageError(detail=detail)

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
            return self._torch.empty(length, dtype=self._torch.uint8)
        except RuntimeError:
            raise _no_room(length) from None

    def tensor(self, area: Any, place: Place) -> Any:
        """See ``Framework.tensor``."""
        kind = DTYPES[place.dtype]
        shape = place.shape if kind.bits >= 8 else (*place.shape[:-1], place.shape[-1] // 2)
        if not place.length:
            return self._torch.empty(shape, dtype=getattr(self._torch, kind.torch))
        flat = area[place.offset : place.offset + place.length]
        return flat.view(getattr(self._torch, kind.torch)).reshape(shape)


def framework_of(name: str, device: str) -> Framework:
    """The framework of that name, for a device. Raises ``UsageError``."""
    arguments.text(device, "the device")
    if name == NumPy.name:
        if device != CPU:
            detail = f"NumPy's arrays lie in the host's memory: use device='cpu', not {device!r}, or framework='torch'"
            raise UsageError(detail=detail)
        return NumPy()
    if name == Torch.name:
        return Torch(device)
    raise arguments.refuse(name, "the framework", "'torch' or 'numpy'")


def _package(name: str, install: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        other = Torch.name if name == NumPy.name else NumPy.name
        detail = f"framework={name!r} needs that package: pip install {install}; or use framework={other!r}"
        raise UsageError(detail=detail) from None


def _no_type(tensor: Tensor, why: str) -> UsageError:
    detail = (
        f"tensor {tensor.name!r} is of {tensor.dtype}: {why}; leave it out with include=, "
        "or bring it as a file with 'mooncake get --tensors'"
    )
    return UsageError(detail=detail)


def _no_room(length: int) -> StorageError:
    return StorageError(path="memory", detail=f"cannot allocate memory: tensors take {length} bytes")
