"""What a caller asks for: one range read or written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.protocol.wire import Opcode

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter

    from engine.memory.registered import RegisteredMemory
    from engine.transfer.remote_segment import Segment


MAX_REQUESTS = 1 << 20
"""Requests in one batch."""


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """Move ``length`` bytes between local memory and ``address`` of a segment.

    ``local`` is what ``register_memory`` returned, or memory as that takes it; ``offset`` counts bytes from its start.
    READ brings the segment's bytes here, WRITE takes ours there. Without ``length`` it is all from ``offset`` on.
    """

    opcode: Opcode
    local: RegisteredMemory | Exporter
    segment: Segment
    address: int
    length: int | None = None
    offset: int = 0
