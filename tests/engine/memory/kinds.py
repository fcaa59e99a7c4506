"""Every kind of memory, and what is none, with stand-ins for the tensors of libraries that are not installed."""

from __future__ import annotations

import array
import ctypes
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes", reason="pip install ml_dtypes")


class OverDLPack:
    """What offers DLPack and nothing else: ``newest`` says whether it knows of versions."""

    def __init__(self, array: Any, *, device: int = 1, newest: bool = True) -> None:
        self.array = array
        self.device = device
        self.newest = newest

    def __dlpack__(self, **options: Any) -> Any:
        if self.newest:
            return self.array.__dlpack__(**options)
        if options:
            raise TypeError("unexpected keyword argument")
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


class Immutable(OverDLPack):
    """As an array of JAX, of a type that the buffer protocol cannot describe."""

    __module__ = "jaxlib._jax"


class Device:
    """What a tensor says of where it lies."""

    def __init__(self, kind: str) -> None:
        self.type = kind


class WithPointer:
    """As a tensor of PyTorch that DLPack refuses: a parameter, or one of float8."""

    def __init__(self, array: Any, *, device: str = "cpu", conjugated: bool = False) -> None:
        self.array = array
        self.shape = array.shape
        self.device = Device(device)
        self.conjugated = conjugated

    @property
    def __cuda_array_interface__(self) -> Any:
        raise AttributeError("Can't get __cuda_array_interface__ on non-CUDA tensor type")

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def element_size(self) -> int:
        return int(self.array.itemsize)

    def stride(self) -> tuple[int, ...]:
        return tuple(each // self.array.itemsize for each in self.array.strides)

    def is_conj(self) -> bool:
        return self.conjugated


class Uncommon(WithPointer):
    """As a tensor of PyTorch whose values do not lie in memory as its shape says; ``changed`` are what it says."""

    def __init__(self, array: Any, **changed: Any) -> None:
        super().__init__(array)
        for name, value in changed.items():
            setattr(self, name, value)


class Uninitialized(WithPointer):
    """As a parameter of a lazy module: whatever it is asked, it refuses."""

    def is_conj(self) -> bool:
        raise ValueError("Attempted to use an uninitialized parameter")

    data_ptr = element_size = is_conj


class Storage:
    """As a storage of PyTorch."""

    def __init__(self, array: Any, length: int | None = None) -> None:
        self.array = array
        self.length = array.nbytes if length is None else length

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def nbytes(self) -> int:
        return self.length


def small_storage() -> Uncommon:
    """Four values in a byte, as of quantised tensors, of which each has a byte by its own word."""
    made = numbers("u1")
    return Uncommon(made, untyped_storage=lambda: Storage(made, 6), storage_offset=lambda: 0)


class Sparse(WithPointer):
    """As a sparse tensor of PyTorch."""

    layout = "torch.sparse_coo"

    def stride(self) -> tuple[int, ...]:
        raise RuntimeError("Sparse tensors do not have strides")


class OverArrayInterface:
    """What offers ``__array_interface__`` and nothing else, as images do."""

    def __init__(self, array: Any, **changed: Any) -> None:
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, **changed}


def numbers(dtype: Any = np.float64, shape: tuple[int, ...] = (4, 6)) -> Any:
    """An array of that type with different values."""
    count = int(np.prod(shape))
    return (np.arange(count) % 100).astype(dtype).reshape(shape)


def structure() -> Any:
    class Pair(ctypes.Structure):
        _fields_ = (("O", ctypes.c_int), ("b", ctypes.c_double))

    return Pair(1, 2.0)


def read_only(made: Any) -> Any:
    made.flags.writeable = False
    return made


WRITABLE: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(b"abcdefgh"),
    "memoryview": lambda: memoryview(bytearray(b"abcdefgh")),
    "memoryview of doubles": lambda: memoryview(bytearray(16)).cast("d"),
    "memoryview of two dimensions": lambda: memoryview(bytearray(8)).cast("B", (2, 4)),
    "array.array": lambda: array.array("d", [1.0, 2.0]),
    "mmap": lambda: mmap.mmap(-1, 100),
    "ctypes array": lambda: (ctypes.c_double * 3)(1, 2, 3),
    "ctypes structure": structure,
    "numpy": numbers,
    "numpy, big endian": lambda: numbers(">i4"),
    "numpy, bool": lambda: numbers(bool),
    "numpy, complex": lambda: numbers(complex),
    "numpy, float16": lambda: numbers(np.float16),
    "numpy, no dimension": lambda: np.array(5.0),
    "numpy, dates": lambda: numbers("M8[s]"),
    "numpy, text": lambda: np.array(["ab", "c"]),
    "numpy, records": lambda: np.zeros(3, [("O", "f4"), ("b", "i8")]),
    "numpy, Fortran's order": lambda: np.asfortranarray(numbers()),
    "numpy, other order of dimensions": lambda: numbers(shape=(2, 3, 4)).transpose(0, 2, 1),
    "numpy, dimension of one": lambda: numbers(shape=(4, 1, 6))[:, ::2, :],
    "bfloat16": lambda: numbers(ml_dtypes.bfloat16),
    "bfloat16, Fortran's order": lambda: np.asfortranarray(numbers(ml_dtypes.bfloat16)),
    "bfloat16, no dimension": lambda: np.array(5.0, ml_dtypes.bfloat16),
    "bfloat16 in records": lambda: np.zeros(3, [("a", ml_dtypes.bfloat16), ("b", "i8")]),
    "float8": lambda: numbers(ml_dtypes.float8_e4m3fn),
    "int4": lambda: np.zeros(5, ml_dtypes.int4),
    "array interface": lambda: OverArrayInterface(numbers()),
    "array interface of text": lambda: OverArrayInterface(np.array(["ab", "c"])),
    "DLPack": lambda: OverDLPack(numbers()),
    "DLPack without versions": lambda: OverDLPack(numbers(), newest=False),
    "DLPack, Fortran's order": lambda: OverDLPack(np.asfortranarray(numbers())),
    "DLPack, no dimension": lambda: OverDLPack(np.array(5.0)),
    "DLPack, pinned": lambda: OverDLPack(numbers(), device=3),
    "data_ptr": lambda: WithPointer(numbers()),
    "storage": lambda: Storage(numbers()),
    "data_ptr, channels last": lambda: WithPointer(numbers(shape=(2, 3, 4, 5)).transpose(0, 3, 1, 2)),
}
"""Each is made anew for each test, and holds some bytes."""

READ_ONLY: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"abcdefgh",
    "memoryview": lambda: memoryview(b"abcdefgh"),
    "numpy": lambda: read_only(numbers()),
    "numpy, Fortran's order": lambda: read_only(np.asfortranarray(numbers())),
    "bfloat16": lambda: read_only(numbers(ml_dtypes.bfloat16)),
    "array interface with bytes": lambda: OverArrayInterface(np.zeros(8, "u1"), data=b"abcdefgh"),
    "DLPack": lambda: OverDLPack(read_only(numbers())),
    "JAX": lambda: Immutable(numbers()),
    "numpy scalar": lambda: np.float64(5),
    "mmap": lambda: mmap.mmap(-1, 100, prot=mmap.PROT_READ),
}

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a slice": (lambda: numbers()[:, ::2], "is not contiguous in memory.*ascontiguousarray"),
    "a memoryview's slice": (lambda: memoryview(bytearray(8))[::2], "is not contiguous in memory"),
    "backwards": (lambda: numbers()[::-1], "is not contiguous in memory"),
    "broadcast": (lambda: np.broadcast_to(np.zeros(1), (5,)), "is not contiguous in memory"),
    "a slice of bfloat16": (lambda: numbers(ml_dtypes.bfloat16)[:, ::2], "is not contiguous in memory"),
    "a slice over DLPack": (lambda: OverDLPack(numbers()[:, ::2]), r"is not contiguous in memory.*\.contiguous\(\)"),
    "a slice of a tensor": (lambda: WithPointer(numbers()[:, ::2]), "is not contiguous in memory"),
    "CUDA over DLPack": (lambda: OverDLPack(numbers(), device=2), r"lies on a device \(CUDA\); .*not supported"),
    "ROCm over DLPack": (lambda: OverDLPack(numbers(), device=10), "lies on a device .*10"),
    "CUDA's array interface": (type("Gpu", (), {"__cuda_array_interface__": {}}), "CUDA.*not supported"),
    "a tensor elsewhere": (lambda: WithPointer(numbers(), device="xpu"), r"lies on a device \(xpu\)"),
    "a tensor without memory": (lambda: WithPointer(numbers(), device="meta"), r"no memory; .*\.to_empty\("),
    "a tensor at address 0": (lambda: Uncommon(numbers(), data_ptr=lambda: 0), "has a shape and no memory"),
    "a conjugated tensor": (lambda: WithPointer(numbers(), conjugated=True), r"\.resolve_conj\(\)"),
    "a negated tensor": (lambda: Uncommon(numbers(), is_neg=lambda: True), r"\.resolve_neg\(\)"),
    "a sparse tensor": (lambda: Sparse(numbers()), r"is sparse \(COO\), .*\.to_dense\(\)"),
    "a tensor in blocks": (lambda: Uncommon(numbers(), layout="torch._mkldnn"), r"laid out as mkldnn.*\.to_dense\(\)"),
    "a nested tensor": (lambda: Uncommon(numbers(), is_nested=True), r"nested tensor.*\.unbind\(\)"),
    "several values in a byte": (small_storage, r"6 bytes of memory and a shape of 24; .*untyped_storage"),
    "an uninitialised parameter": (lambda: Uninitialized(numbers()), "cannot be used as memory"),
    "objects": (lambda: np.array([None, 1]), "holds Python objects"),
    "records with objects": (lambda: np.zeros(2, [("a", "O"), ("b", "f4")]), "holds Python objects"),
    "records with bfloat16 and objects": (
        lambda: np.zeros(2, [("a", "O"), ("b", ml_dtypes.bfloat16)]),
        "holds Python objects",
    ),
    "ctypes objects": (ctypes.py_object * 2, "holds Python objects"),
    "objects of an array interface": (lambda: OverArrayInterface(np.zeros(2), typestr="|O8"), "holds Python objects"),
    "bits of an array interface": (lambda: OverArrayInterface(np.zeros(2), typestr="|t8"), "cannot be used as memory"),
    "text": (lambda: "abc", "of type str, cannot be used as memory"),
    "a list": (lambda: [1, 2], "of type list, cannot be used as memory"),
    "a number": (lambda: 5, "of type int, cannot be used as memory"),
    "nothing": (lambda: None, "of type NoneType"),
    "a closed mapping": (lambda: closed(mmap.mmap(-1, 100)), "mmap closed or invalid"),
    "a released view": (lambda: released(memoryview(b"1")), "released memoryview"),
}


def closed(mapping: mmap.mmap) -> mmap.mmap:
    mapping.close()
    return mapping


def released(view: memoryview) -> memoryview:
    view.release()
    return view


def content(made: Any) -> bytes:
    """The bytes as they lie in memory, by another way."""
    inner = getattr(made, "array", made)
    if isinstance(inner, (np.ndarray, np.generic)):
        flat = np.asarray(inner)
        if isinstance(getattr(made, "__array_interface__", {}).get("data"), bytes):
            return bytes(made.__array_interface__["data"])
        return ctypes.string_at(flat.ctypes.data, flat.nbytes)
    return bytes(memoryview(inner).cast("B")) if not isinstance(inner, mmap.mmap) else inner[:]
