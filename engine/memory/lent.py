"""What counts as memory, wherever memory is taken: a flat view of the bytes of somebody else's object.

One rule, in this order. Nothing of NumPy or of a tensor library is imported:

1. Python's buffer protocol: ``bytes``, ``bytearray``, ``memoryview``, ``array``, ``mmap``, ``ctypes``, NumPy.
2. ``__array_interface__``: NumPy with types for which the buffer protocol has no letter, as those of ``ml_dtypes``.
3. DLPack, on the host: JAX, TensorFlow, PyTorch.
4. ``data_ptr``, on the host: what PyTorch has and DLPack cannot say, such as parameters and float8; and its storages.

The bytes are those of the memory, in the order in which they lie there. They must lie together: Fortran's order will
do, and any other order of the dimensions; a slice with gaps will not.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import re
from collections.abc import Sequence
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, NoReturn

from engine.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter

HOST_DEVICES = frozenset({1, 3, 11, 13})
"""DLPack's devices whose memory a program reads and writes itself: the CPU's, pinned (CUDA, ROCm), and managed."""

IMMUTABLE = frozenset({"jax", "jaxlib", "tensorflow"})
"""Libraries whose tensors never change, which their DLPack does not say: the same memory may stand for others, too."""

_FIELD_NAMES = re.compile(":[^:]*:")
_TYPE = re.compile(r"[<>|=]([A-Za-z])([0-9]+)(\[.*\])?")
_OBJECT = re.compile(r"'[<>|=]?O[0-9]*'")
CUDA = 2
"""DLPack's number of CUDA's devices."""
OPAQUE = 3
"""DLPack's code of a pointer."""
_READ_ONLY = 1
"""DLPack's flag, from version 1 on."""
_CHARACTER_BYTES = 4
"""Of NumPy's text, whose types count characters."""
_STRIDED = "torch.strided"
"""PyTorch's name for tensors that lie in memory in the order of their strides."""
_SPARSE = {f"sparse_{kind}": f"sparse ({kind.upper()})" for kind in ("coo", "csr", "csc", "bsr", "bsc")}
"""PyTorch's names of other layouts, in words."""


class PyBuffer(ctypes.Structure):
    """``Py_buffer`` of Python's ``pybuffer.h``."""

    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


class _DLTensor(ctypes.Structure):
    """``DLTensor`` of ``dlpack.h``."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Versioned(ctypes.Structure):
    """``DLManagedTensorVersioned``. The one without a version begins with the tensor."""

    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", _DLTensor),
    )  # fmt: skip


_FULL_READ_ONLY = 0x11C
"""``PyBUF_FULL_RO``: any layout, described in full."""

get_buffer = ctypes.pythonapi.PyObject_GetBuffer
get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(PyBuffer), ctypes.c_int)
release_buffer = ctypes.pythonapi.PyBuffer_Release
release_buffer.argtypes = (ctypes.POINTER(PyBuffer),)
release_buffer.restype = None
_is_capsule = ctypes.pythonapi.PyCapsule_IsValid
_is_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)
_in_capsule = ctypes.pythonapi.PyCapsule_GetPointer
_in_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)
_in_capsule.restype = ctypes.c_void_p


def byte_view(source: Exporter, what: str, *, writable: bool = False) -> memoryview:
    """A flat view of the bytes of ``source``, which it keeps where they are until it is released.

    ``what`` is how an error names it. Raises ``UsageError``: for what is no memory, or not in one piece, or a GPU's, or
    holds Python objects, and for read-only memory where it is to be ``writable``.
    """
    view = _plain(source)
    if view is None:
        view = _other(source, what)
    if writable and view.readonly:
        view.release()  # else the error's traceback would hold the memory
        raise UsageError(detail=f"{what} is read-only, and cannot be written to")
    return view


def _plain(source: Any) -> memoryview | None:
    """C-contiguous memory, as it nearly always is; every transfer comes by here."""
    try:
        whole = memoryview(source)
        return None if "O" in whole.format else whole.cast("B")
    except (TypeError, ValueError, BufferError):
        return None


def _other(source: Any, what: str) -> memoryview:
    """As ``byte_view``, for what is not C-contiguous memory of a native type."""
    why = "it has no buffer"
    try:
        with memoryview(source) as whole:
            return _exported(whole, source, what)
    except TypeError:
        pass
    except (ValueError, BufferError) as error:
        why = str(error)
    _refuse_device(source, what)
    if is_tensor(source):
        refuse_tensor(source, what)
    for take in (_array_interface, _dlpack, _data_ptr, _storage):
        view = take(source, what)
        if view is not None:
            return view
    kind = type(source).__name__
    detail = f"{what}, of type {kind}, cannot be used as memory ({why}); give bytes, a bytearray, an array or a tensor"
    raise UsageError(detail=detail)


def refuse_tensor(source: Any, what: str) -> None:
    """Raise ``UsageError`` for a tensor whose values are not what lies in its memory, with what to do about it."""
    layout = str(attribute(source, "layout") or _STRIDED)
    if _says(source, "is_nested"):
        detail = f"{what} is a nested tensor, in several pieces; give its parts by name (.unbind())"
    elif layout != _STRIDED:
        kind = layout.rpartition(".")[2].strip("_")
        detail = f"{what} is {_SPARSE.get(kind, f'laid out as {kind}')}, not one piece; give a dense copy (.to_dense())"
    elif _says(source, "is_conj"):
        detail = f"{what} is conjugated when it is read, and not in memory; give a copy that is (.resolve_conj())"
    elif _says(source, "is_neg"):
        detail = f"{what} is negated when it is read, and not in memory; give a copy that is (.resolve_neg())"
    else:
        return
    raise UsageError(detail=detail)


def _says(source: Any, name: str) -> bool:
    """What a tensor says of itself; false where it cannot be asked."""
    said = attribute(source, name)
    with contextlib.suppress(Exception):  # a tensor that was not initialised
        return bool(said() if callable(said) else said)
    return False


def refuse_missing(what: str) -> NoReturn:
    """Raise ``UsageError`` for a tensor that has a shape and no memory."""
    raise UsageError(detail=f"{what} has a shape and no memory; make room for it first (.to_empty(device='cpu'))")


def _exported(whole: memoryview, source: Any, what: str) -> memoryview:
    if "O" in _FIELD_NAMES.sub("", whole.format):
        refuse_objects(what)
    if not whole.nbytes:
        return _nothing()
    if whole.contiguous:
        return PickleBuffer(source).raw()
    check_dense(whole.shape or (), whole.strides or (), whole.itemsize, what)
    owner = memoryview(source)
    buffer = PyBuffer()
    get_buffer(owner, ctypes.byref(buffer), _FULL_READ_ONLY)
    try:
        return _at(buffer.buf or 0, whole.nbytes, owner, readonly=whole.readonly)
    finally:
        release_buffer(ctypes.byref(buffer))


def _array_interface(source: Any, what: str) -> memoryview | None:
    found = attribute(source, "__array_interface__")
    if not isinstance(found, dict):
        return None
    kind = _TYPE.fullmatch(str(found.get("typestr")))
    if kind is None or kind[1] == "t":
        return None
    if kind[1] == "O" or _OBJECT.search(repr(found.get("descr"))):
        refuse_objects(what)
    size = int(kind[2]) * (_CHARACTER_BYTES if kind[1] == "U" else 1)
    shape: tuple[int, ...] = found.get("shape", ())
    strides, data = found.get("strides"), found.get("data")
    length = math.prod(shape) * size
    if not length:
        return _nothing()
    if strides is not None:
        check_dense(shape, strides, size, what)
    if not isinstance(data, tuple):
        if data is None:
            return None
        offset = int(found.get("offset") or 0)
        with byte_view(data, what) as flat:
            return flat[offset : offset + length]
    address, readonly = data
    if not address:
        refuse_missing(what)
    return _at(address, length, source, readonly=bool(readonly))


def _dlpack(source: Any, what: str) -> memoryview | None:
    export = attribute(source, "__dlpack__")
    if export is None:
        return None
    try:
        try:
            capsule = export(max_version=(1, 0), copy=False)
        except TypeError:  # an older one
            capsule = export()
    except Exception:  # noqa: BLE001 - whatever a library says that it cannot
        return None
    found = dlpack_tensor(capsule)
    if found is None:
        return None
    tensor, readonly = found
    readonly |= type(source).__module__.partition(".")[0] in IMMUTABLE
    size, rest = divmod(tensor.bits * tensor.lanes, 8)
    if tensor.device_type not in HOST_DEVICES or rest:
        return None
    if tensor.code == OPAQUE:
        refuse_objects(what)
    shape = tensor.shape[: tensor.ndim] if tensor.ndim else []
    length = math.prod(shape) * size
    if not length:
        return _nothing()
    if tensor.strides and tensor.ndim:
        check_dense(shape, [each * size for each in tensor.strides[: tensor.ndim]], size, what)
    if not tensor.data:
        refuse_missing(what)
    # The capsule is not consumed: its own end gives the tensor back.
    return _at((tensor.data or 0) + tensor.byte_offset, length, capsule, readonly=readonly)


def dlpack_tensor(capsule: Any) -> tuple[_DLTensor, bool] | None:
    """The tensor in DLPack's capsule, and whether it is read-only; None for a version that is not known."""
    if _is_capsule(capsule, b"dltensor"):
        return _DLTensor.from_address(_in_capsule(capsule, b"dltensor")), False
    if not _is_capsule(capsule, b"dltensor_versioned"):
        return None
    managed = _Versioned.from_address(_in_capsule(capsule, b"dltensor_versioned"))
    return (managed.tensor, bool(managed.flags & _READ_ONLY)) if managed.major == 1 else None


def is_tensor(source: Any) -> bool:
    """Whether it tells where it lies as a tensor of PyTorch does."""
    return all(callable(attribute(source, name)) for name in ("data_ptr", "element_size", "stride"))


def _data_ptr(source: Any, what: str) -> memoryview | None:
    if not is_tensor(source):
        return None
    found = tensor_place(source, what)
    if found is None:
        return None
    address, length = found
    return _at(address, length, source, readonly=False) if length else _nothing()


def _storage(source: Any, what: str) -> memoryview | None:
    found = storage_place(source, what)
    if found is None:
        return None
    address, length = found
    return _at(address, length, source, readonly=False) if length else _nothing()


def is_storage(source: Any) -> bool:
    """Whether it is what lies under tensors of PyTorch, as bytes."""
    asked = callable(attribute(source, "data_ptr")) and callable(attribute(source, "nbytes"))
    return asked and attribute(source, "dtype") is None


def storage_place(source: Any, what: str) -> tuple[int, int] | None:
    """As ``tensor_place``, of a storage; None for all else."""
    if not is_storage(source):
        return None
    address, length = source.data_ptr(), source.nbytes()
    if length and not address:
        refuse_missing(what)
    return address, length


def tensor_place(source: Any, what: str) -> tuple[int, int] | None:
    """Address and length in bytes of a tensor of PyTorch, wherever it lies; None where it does not say.

    Raises ``UsageError`` where it is not in one piece, or where its memory holds less than its shape says.
    """
    try:
        size, shape, address = source.element_size(), tuple(source.shape), source.data_ptr()
        strides = [each * size for each in source.stride()]
    except Exception:  # noqa: BLE001 - without memory
        return None
    length = math.prod(shape) * size
    if not length:
        return 0, 0
    check_dense(shape, strides, size, what)
    if not address:
        refuse_missing(what)
    with contextlib.suppress(AttributeError, TypeError):  # stand-ins, and releases that have none
        behind = source.untyped_storage().nbytes() - source.storage_offset() * size
        if length > behind:  # several values in a byte, or a storage that was cut short
            detail = f"{what} has {behind} bytes of memory and a shape of {length}; give that (.untyped_storage())"
            raise UsageError(detail=detail)
    return address, length


def _at(address: int, length: int, owner: object, *, readonly: bool) -> memoryview:
    """The memory at an address, as long as ``owner`` lives, which the view sees to."""
    raw = (ctypes.c_ubyte * length).from_address(address)
    raw.owner = owner  # type: ignore[attr-defined]
    view = PickleBuffer(raw).raw()  # a view of what ctypes made would have a format that casts refuse
    if not readonly:
        return view
    with view:
        return view.toreadonly()


def _nothing() -> memoryview:
    return memoryview(bytearray())


def check_dense(shape: Sequence[int], strides: Sequence[int], size: int, what: str) -> None:
    """Raise ``UsageError`` unless the items lie together, in whatever order of the dimensions."""
    expected = size
    for stride, count in sorted((stride, count) for stride, count in zip(strides, shape, strict=True) if count != 1):
        if stride != expected:
            detail = f"{what} is not contiguous in memory; give a copy that is (numpy.ascontiguousarray, .contiguous())"
            raise UsageError(detail=detail)
        expected *= count


def _refuse_device(source: Any, what: str) -> None:
    name = ""
    if attribute(source, "__cuda_array_interface__") is not None:
        name = "CUDA"
    device = attribute(source, "__dlpack_device__")
    if not name and callable(device):
        number = 1
        with contextlib.suppress(Exception):  # it has none to tell
            number = int(device()[0])
        if number not in HOST_DEVICES:
            name = "CUDA" if number == CUDA else f"DLPack's {number}"
    if not name and attribute(source, "data_ptr") is not None:
        kind = attribute(attribute(source, "device"), "type")
        name = "" if kind in {"cpu", None} else str(kind)
    if name == "meta":
        refuse_missing(what)
    if name:
        detail = f"{what} lies on a device ({name}); memory of GPUs is not supported here: copy it to the host (.cpu())"
        raise UsageError(detail=detail)


def refuse_objects(what: str) -> NoReturn:
    """Raise ``UsageError`` for memory that holds addresses of Python's objects."""
    detail = f"{what} holds Python objects, whose addresses mean nothing elsewhere; give memory of numbers or bytes"
    raise UsageError(detail=detail)


def attribute(source: Any, name: str) -> Any:
    """An attribute, or None where there is none or it says why not, as a tensor's do."""
    try:
        return getattr(source, name, None)
    except Exception:  # noqa: BLE001 - see above
        return None
