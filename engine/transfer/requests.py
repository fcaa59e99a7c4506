"""What a caller asks for: one range read or written."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine.memory.buffers import Buffer
from engine.protocol.wire import Opcode

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter

    from engine.memory.joined_buffer import JoinedBuffer
    from engine.memory.registered import RegisteredMemory
    from engine.transfer.remote_segment import Segment


MAX_REQUESTS = 1 << 20
"""Requests in one batch."""


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """Move ``length`` bytes between local memory and ``address`` of a segment.

    ``local`` is what ``register_memory`` returned, or memory as that takes it, or a ``JoinedBuffer``, over TCP alone;
    ``offset`` counts bytes from its start.
    READ brings the segment's bytes here, WRITE takes ours there. Without ``length`` it is all from ``offset`` on.
    """

    opcode: Opcode
    local: RegisteredMemory | JoinedBuffer | Exporter
    segment: Segment
    address: int
    length: int | None = None
    offset: int = 0


def check_range(address: int, offset: int, length: int, size: int) -> None:
    """Raise ``UsageError`` for a range that does not exist here, or nowhere at all."""
    try:
        index(address), index(offset), index(length)
    except TypeError:
        detail = f"address {address!r}, offset {offset!r} and length {length!r} must be whole numbers"
        raise UsageError(detail=detail) from None
    if offset < 0 or length < 0 or offset + length > size:
        raise UsageError(detail=f"{length} bytes at {offset} lie outside local memory of {size} bytes")
    if not 0 <= address <= address + length <= 1 << 64:
        raise UsageError(detail=f"{length} bytes at address {address:#x} do not exist")


def check_writable(buffer: Buffer, offset: int) -> None:
    """Raise ``UsageError`` for memory, or a file, that is not to be read into."""
    view = buffer.view(offset, 1)
    if view is None:
        if not buffer.writable and buffer.rooms(offset, 1) is None:
            raise UsageError(detail=f"cannot read into {buffer.name!r}: it is a file that is not registered writable")
        return
    with view:
        if view.readonly:
            raise UsageError(detail="cannot read into memory that is read-only")
