"""Calls and answers of the master, in whatever form they come, as neutral values; and the other way round."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.errors import RemoteProtocolError
from engine.rpc import framing
from engine.rpc.compiled import MALFORMED, Codec
from engine.rpc.framing import Answer, Request
from engine.rpc.methods import CALLS, FORMS, FUNCTIONS, Form
from engine.rpc.types import MAX_LITERAL, STRING, describe

_TEXT = Codec(STRING)
_unpack = framing.WITH_HASH.unpack_from


class Call(NamedTuple):
    """A call that we know; ``form`` says which generations send it so."""

    sequence: int
    form: Form
    args: tuple[Any, ...]


class UnknownCall(NamedTuple):
    """A call, or a form of one, that no generation here has."""

    sequence: int
    function: int
    hash: int
    literal: bytes

    @property
    def name(self) -> str:
        """The method, if it is only its form that is not known."""
        known = FUNCTIONS.get(self.function)
        return known.name if known else f"function {self.function:#010x}"

    @property
    def words(self) -> str:
        """The call for the log: what it is, and what it is given."""
        return f"{self.name} ({describe(self.literal)})"


def call_key(function: int, body: bytes) -> int:
    """The key in ``FORMS`` of a call: its function, and the hash of what it is given, if anything."""
    return function << 32 | int.from_bytes(body[:4], "little") | 1 if body else function << 32


def only_call(data: bytes) -> tuple[int, int]:
    """The sequence number and that key of a call, where that is all that came, as nearly always; else the key is 0.

    Its arguments begin at ``framing.HEAD``.
    """
    if len(data) >= framing.WITH_HASH.size:
        magic, sequence, function, length, attached, code = _unpack(data)
        if magic == framing.MAGIC and length + framing.HEAD == len(data) and not attached:
            return sequence, function << 32 | code | 1
    return 0, 0


def read_call(request: Request, peer: str) -> Call | UnknownCall:
    """What a client asks. Raises ``RemoteProtocolError`` where the form is known, and the bytes are not of it."""
    sequence, function, body = request
    key = call_key(function, body)
    form = FORMS.get(key)
    if form is None:
        return _unknown(request, key & 0xFFFFFFFF)
    if form.codec is None:
        return Call(sequence, form, ())
    try:
        return Call(sequence, form, form.codec.read(body))
    except MALFORMED as error:
        detail = f"a call of {form.method.name} that cannot be read: {error}"
        raise RemoteProtocolError(peer=peer, detail=detail) from error


def _unknown(request: Request, code: int) -> UnknownCall:
    """The literal is taken as it comes: everything up to the first zero, which no literal has in it."""
    literal = b""
    if len(request.body) > 5 and request.body[0] & 1 and request.body[4] & 0b100:
        literal = request.body[5 : 5 + MAX_LITERAL].partition(b"\0")[0]
    return UnknownCall(request.sequence, request.function, code, literal)


def write_answer(sequence: int, form: Form, generation: str, result: Any) -> bytes:
    """The frame that a client of a generation is answered with."""
    return framing.answer(sequence, form.method.answers[generation].write(result))


def write_refusal(sequence: int, error: int, text: str) -> bytes:
    """The frame of a call that is not even tried."""
    return framing.answer(sequence, _TEXT.write(text), error)


def write_call(sequence: int, generation: str, method: str, args: tuple[Any, ...]) -> bytes:
    """The frame with which a client of a generation asks; ``args`` are in the order of ``CALLS[method].names``."""
    known = CALLS[method]
    codec = known.requests[generation].codec
    return framing.request(sequence, known.function, codec.write(args) if codec else b"")


def read_answer(answer: Answer, generation: str, method: str, peer: str) -> Any:
    """What a master answers to a client of a generation: a value or a ``Code``. Raises ``RemoteProtocolError``.

    A master that refused the call is told by its error, which is the number of coro_rpc's, in the detail.
    """
    if answer.error:
        detail = f"it refuses to {method} (error {answer.error}): {_refusal(answer.body)}"
        raise RemoteProtocolError(peer=peer, detail=detail)
    try:
        return CALLS[method].answers[generation].read(answer.body)
    except MALFORMED as error:
        detail = f"an answer to {method} that {generation} does not know: {error}"
        raise RemoteProtocolError(peer=peer, detail=detail) from error


def _refusal(body: bytes) -> str:
    try:
        return str(_TEXT.read(body))
    except MALFORMED:
        return "it gives no reason"
