"""Forks: what a child must not use, and what it lets go of.

A fork copies memory and descriptors, and of the threads just one. Whatever waits for another thread would wait in the
child for ever, and whatever reads from a connection would take bytes that are its parent's. So an object belongs to the
process that made it: in a child it says so (``Origin.check``) and does nothing. And at the fork itself the child lets
go of what its parent has open, so that no port, lock or peer's connection outlives the parent because a child does.

There a descriptor is made to stand for /dev/null. To close it would be wrong: an object that still knows its number
closes it at its own end, and by then that number may be another file's.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterable
from typing import NoReturn, Protocol, TypeVar

from engine.errors import ForkedProcess, UsageError

_line = [os.getpid()]
"""The processes that were forked one from another, down to this one; each object knows its place among them."""

_held: dict[int, tuple[int, int]] = {}
"""Descriptors that a child must not keep, and what they stood for: a number may by then be somebody else's."""


class HasDescriptor(Protocol):
    """A socket or a file."""

    def fileno(self) -> int:
        """Its descriptor; negative once it is closed."""


class Inherited(Protocol):
    """An object that knows what a child inherits of it."""

    def inherited(self) -> Iterable[int]:
        """The descriptors that a child must not keep. Called in the child: it must wait for nothing, no lock either."""


T = TypeVar("T", bound=HasDescriptor)

_holders: weakref.WeakSet[Inherited] = weakref.WeakSet()
_afresh: list[Callable[[], object]] = []


class Origin:
    """The process in which an object was made."""

    __slots__ = ("_place", "what")

    def __init__(self, what: str) -> None:
        """``what`` is what an error calls the object: ``this P2PStore``."""
        self.what = what
        self._place = len(_line)

    @property
    def elsewhere(self) -> bool:
        """Whether this process was forked since."""
        return self._place != len(_line)

    def check(self) -> None:
        """Raise ``ForkedProcess`` in another process than the object's own."""
        if self._place != len(_line):
            raise ForkedProcess(what=self.what, pid=_line[self._place - 1])


def refuse_to_be_sent(what: str) -> NoReturn:
    """Raise ``UsageError``: pickling, as multiprocessing's 'spawn' and ``copy`` do it, cannot take it along."""
    detail = f"{what} works in one process, and cannot be copied or sent to another: make one there"
    raise UsageError(detail=detail)


def parent() -> int:
    """The process that this one was forked from, in a child."""
    return _line[-2]


def hold(what: T) -> T:
    """Let a forked child not keep this socket or file; returns it."""
    hold_descriptor(what.fileno())
    return what


def hold_descriptor(descriptor: int) -> int:
    """As ``hold``, for the bare descriptor of a socket or a file.

    It need not be taken back: a number that stands for something else by then is left alone.
    """
    with contextlib.suppress(OSError):
        _held[descriptor] = _identity(descriptor)
    return descriptor


def ask_at_fork(holder: Inherited) -> None:
    """Have a forked child ask ``holder`` what it must not keep, for as long as that exists."""
    _holders.add(holder)


def renew_at_fork(renew: Callable[[], object]) -> None:
    """Call ``renew`` in every forked child: for what belongs to a module, whose locks may have been taken."""
    _afresh.append(renew)


def never_end(what: object) -> None:
    """Keep an object of the parent's from being taken apart in a child, its exit included.

    The end of a coroutine runs what stands in its ``finally``; the end of a gRPC channel or of a database takes part in
    what only the parent has a share in.
    """
    import ctypes  # noqa: PLC0415 - in a child alone, and ``mooncake --help`` does without

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(what))


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _inherited() -> set[int]:
    found: set[int] = set()
    for holder in list(_holders):
        with contextlib.suppress(Exception):  # an object in the middle of its making or its end
            found.update(holder.inherited())
    for descriptor, identity in _held.items():
        with contextlib.suppress(OSError):
            if _identity(descriptor) == identity:
                found.add(descriptor)
    return {descriptor for descriptor in found if descriptor >= 0}


def _let_go(descriptors: set[int]) -> None:
    if not descriptors:
        return
    try:
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # no number is left: one of these is used again
        os.close(next(iter(descriptors)))
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors - {nowhere}:
        os.dup2(nowhere, descriptor, inheritable=False)
    if nowhere not in descriptors:
        os.close(nowhere)


def _in_child() -> None:
    """Python's hook; an exception here would be printed and forgotten."""
    _line.append(os.getpid())
    with contextlib.suppress(OSError):
        _let_go(_inherited())
    for renew in _afresh:
        renew()
    _held.clear()
    _holders.clear()


os.register_at_fork(after_in_child=_in_child)
