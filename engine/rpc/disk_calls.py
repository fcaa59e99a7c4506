"""What clients ask one another: to have values that lie on the other's disk ready in its memory, and to let go of them.

It is the master's wire, with other methods. Releases from 0.3.12 on name a value with its tenant (``stored_name``),
those before by its key alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.errors import RemoteProtocolError
from engine.rpc import framing
from engine.rpc.codes import Code
from engine.rpc.compiled import MALFORMED, Codec
from engine.rpc.framing import Answer, Request
from engine.rpc.messages import DEFAULT_TENANT
from engine.rpc.types import BOOL, I64, STRING, U64, Expected, Struct, Vector, arguments, function_id

SEPARATOR = "\0"
"""Between a tenant and a key."""

NO_SUCH_CALL = 5
"""The error of coro_rpc for a call that a server does not have."""


class Wanted(NamedTuple):
    """Values that are to be made ready, and the sizes that the asker expects."""

    names: list[str]
    sizes: list[int]


class Ready(NamedTuple):
    """Where they lie, in the memory of the segment ``endpoint``, for ``lease_ms`` or until ``batch`` is let go of."""

    batch: int
    addresses: list[int]
    endpoint: str
    lease_ms: int


class Done(NamedTuple):
    """A batch that is not needed any more."""

    batch: int


_GET = function_id("batch_get_offload_object", "RealClient")
_LET_GO = function_id("release_offload_buffer", "RealClient")
_WANTED = Codec(arguments(("names", "sizes"), {}, {"names": Vector(STRING), "sizes": Vector(I64)}))
_READY = Codec(
    Expected(Struct(Ready, [("batch", U64), ("addresses", Vector(U64)), ("endpoint", STRING), ("lease_ms", U64)]))
)
_DONE = Codec(arguments(("batch",), {}, {"batch": U64}))
_FOUND = Codec(BOOL)
_TEXT = Codec(STRING)


def stored_name(tenant: str, key: str) -> str:
    """What a value is called on a disk."""
    return f"{tenant}{SEPARATOR}{key}"


def tenant_and_key(name: str) -> tuple[str, str]:
    """The other way round."""
    tenant, separator, key = name.partition(SEPARATOR)
    return (tenant, key) if separator else (DEFAULT_TENANT, name)


def ask(sequence: int, call: Wanted | Done) -> bytes:
    """The frame of a call."""
    if isinstance(call, Wanted):
        return framing.request(sequence, _GET, _WANTED.write((call.names, call.sizes)))
    return framing.request(sequence, _LET_GO, _DONE.write((call.batch,)))


def asked(request: Request, peer: str) -> Wanted | Done | None:
    """What another client asks; None for what nobody here knows. Raises ``RemoteProtocolError``."""
    try:
        if request.function == _GET:
            return Wanted(*_WANTED.read(request.body))
        if request.function == _LET_GO:
            return Done(*_DONE.read(request.body))
    except MALFORMED as error:
        raise RemoteProtocolError(peer=peer, detail=f"a call that cannot be read: {error}") from error
    return None


def tell(sequence: int, result: Ready | Code | bool) -> bytes:  # noqa: FBT001
    """The frame of an answer: to ``Wanted`` what is ready, or a code; to ``Done`` whether there was such a batch."""
    return framing.answer(sequence, (_FOUND if isinstance(result, bool) else _READY).write(result))


def refuse(sequence: int) -> bytes:
    """The frame of the answer to what nobody here knows."""
    return framing.answer(sequence, _TEXT.write("this client has no such call"), NO_SUCH_CALL)


def told(answer: Answer, peer: str) -> Ready | Code:
    """What another client answers to ``Wanted``. Raises ``RemoteProtocolError``."""
    if answer.error:
        raise RemoteProtocolError(peer=peer, detail=f"it does not read its disk for others (error {answer.error})")
    try:
        found: Any = _READY.read(answer.body)
    except MALFORMED as error:
        raise RemoteProtocolError(peer=peer, detail=f"an answer that cannot be read: {error}") from error
    return found if isinstance(found, (Ready, Code)) else Code.INTERNAL
