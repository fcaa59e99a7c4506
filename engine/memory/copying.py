"""Copies within this process that let its other threads run, and new ``bytes`` that are filled in place."""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING

from engine.files.system import system
from engine.memory.lent import PyBuffer, get_buffer, release_buffer

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter

LARGE = 1 << 16
"""Bytes from which a copy lets go of the interpreter's lock: below, letting go takes as long as copying."""

HUGE_PAGE = 2 << 20
"""Bytes of a page where there are large ones."""

MAPPED = 32 << 20
"""Bytes from which the C library has a new piece of memory mapped each time, as none is kept for it.

To fill it page by page takes four times as long as in huge pages: most of it is the kernel's time for each page.
"""

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
_new_bytes.restype = ctypes.py_object
_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_view.restype = ctypes.py_object
_WRITABLE, _READ_ONLY = 0x200, 0x100
_at = ctypes.pythonapi.PyBytes_AsString
_at.argtypes = (ctypes.py_object,)
_at.restype = ctypes.c_void_p


def address_of(data: Exporter) -> int:
    """Where contiguous memory begins; it stays there as long as the caller holds a view of it."""
    buffer = PyBuffer()
    get_buffer(data, ctypes.byref(buffer), 0)
    try:
        return buffer.buf or 0
    finally:
        release_buffer(ctypes.byref(buffer))


def copy(to: memoryview, source: memoryview) -> None:
    """Fill ``to`` with ``source``, of the same length; both are flat views of bytes."""
    if len(to) < LARGE:
        to[:] = source
        return
    if len(to) != len(source):
        raise ValueError(f"{len(source)} bytes do not fill {len(to)}")
    ctypes.memmove(address_of(to), address_of(source), len(to))


def copied(source: memoryview) -> bytes:
    """The bytes of ``source``."""
    if len(source) < LARGE:
        return bytes(source)
    made, room = unfilled(len(source))
    copy(room, source)
    return made


def unfilled(length: int) -> tuple[bytes, memoryview]:
    """New ``bytes`` of any content, and the view with which to fill them before anybody else sees them.

    The caller holds the bytes as long as the view. To make them of what was received elsewhere would touch all memory
    twice. ``length`` is at least 1: no bytes are one object for the whole interpreter.
    """
    made: bytes = _new_bytes(None, length)
    address: int = _at(made)
    if length >= MAPPED:
        first, end = -(-address // HUGE_PAGE) * HUGE_PAGE, (address + length) // HUGE_PAGE * HUGE_PAGE
        with contextlib.suppress(OSError):  # this kernel has none
            system.prefer_huge_pages(first, end - first)
    return made, view_of(address, length)


def view_of(address: int, length: int, *, readonly: bool = False) -> memoryview:
    """The memory at an address, which nothing but the caller keeps there."""
    view: memoryview = _view(address, length, _READ_ONLY if readonly else _WRITABLE)
    return view
