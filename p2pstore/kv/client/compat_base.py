"""What all parts of the compatible class stand on: how an error becomes a number, and memory at an address."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from engine.errors import Closed, MooncakeError, RemoteError
from engine.memory.copying import view_of
from engine.rpc.codes import Code
from p2pstore.errors import UsageError
from p2pstore.kv.client import device_memory
from p2pstore.kv.client.client import Client
from p2pstore.kv.client.sessions import GetSessions, PutSessions
from p2pstore.kv.errors import (
    KeyBusy,
    KeyNotFound,
    MasterRefused,
    MasterUnavailable,
    ValueCorrupt,
    ValueNotWritten,
    ValueUnreadable,
)

if TYPE_CHECKING:
    from typing_extensions import Self

BAD = int(Code.BAD_PARAMS)

log = logging.getLogger("p2pstore.kv.client.compat")

_CODES: tuple[tuple[type[MooncakeError], Code], ...] = (
    (KeyNotFound, Code.NOT_FOUND),
    (KeyBusy, Code.NOT_READY),
    (ValueCorrupt, Code.CHECKSUM),
    (ValueUnreadable, Code.TRANSFER_FAILED),
    (ValueNotWritten, Code.TRANSFER_FAILED),
    (MasterUnavailable, Code.RPC_FAILED),
    (UsageError, Code.BAD_PARAMS),
    (RemoteError, Code.TRANSFER_FAILED),
)


def code_of(error: MooncakeError) -> int:
    """Upstream's number for an error."""
    if isinstance(error, MasterRefused):
        return int(str(error.fields["code"]))
    return next((int(code) for kind, code in _CODES if isinstance(error, kind)), int(Code.INTERNAL))


class Called:
    """A call whose error becomes a code: ``with Called(say) as failed``, and then ``failed.code``."""

    def __init__(self, say: Callable[[MooncakeError], None]) -> None:
        """``say`` hears of the error."""
        self.code = 0
        self._say = say

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, MooncakeError):
            return False
        self.code = code_of(error)
        self._say(error)
        return True


class CompatBase:
    """The state of the compatible class."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._local_buffer = 0
        self._registered: dict[int, memoryview] = {}
        self._on_host = device_memory.HostMemory()
        """Registered memory that is no device's."""
        self._gets: GetSessions | None = None
        self._puts: PutSessions | None = None
        self.last_error = ""
        """What went wrong last, in words."""

    def _open(self) -> Client:
        if self._client is None:
            raise UsageError(detail="the store is not set up")
        self._client.closing.check()
        return self._client

    def _called(self) -> Called:
        return Called(self._say)

    def _say(self, error: MooncakeError) -> None:
        self.last_error = str(error)
        if not isinstance(error, (KeyNotFound, Closed)):
            log.warning("%s", error)

    def _bad(self, detail: str) -> int:
        self._say(UsageError(detail=detail))
        return BAD

    def _coded(self, keys: Sequence[object], work: Callable[[], list[int]]) -> list[int]:
        """What ``work`` answers, a number for each key; the error's code for each where it raises."""
        with self._called() as failed:
            return work()
        return [failed.code] * len(keys)

    def _room_at(self, pointer: int) -> int:
        """Bytes from an address on to the end of the registered memory that it lies in; 0 where it lies in none."""
        exact = self._registered.get(pointer)
        if exact is not None:
            return len(exact)
        return max(
            (max(0, at + len(view) - pointer) for at, view in list(self._registered.items()) if at <= pointer),
            default=0,
        )

    def _at(self, pointer: int, size: int) -> memoryview:
        """The memory at an address, which the caller answers for. Raises ``UsageError`` for what can be none."""
        registered = self._registered.get(pointer)
        if registered is not None and 0 <= size <= len(registered):
            return registered[:size]
        if pointer <= 0 or size < 0:
            raise UsageError(detail=f"{size} bytes at address {pointer:#x} are no memory")
        return view_of(pointer, size)
