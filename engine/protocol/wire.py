"""Mooncake's TCP data plane as bytes: the 24-byte request header and the 8-byte status. No sockets here.

Source: upstream's ``tcp_transport_session_impl.h``. All integers are little-endian::

    header   u64 length | u64 absolute address at the server | u8 opcode | 7 bytes padding, ignored
    status   u64 0x4D435456_00000000 ("MCTV") | code

The opcode is 0 (READ) or 1 (WRITE); bit 0x80 says version 2. What follows a header:

====== ===================== ==============================================
form   client sends          server sends
====== ===================== ==============================================
v1 R   header                ``length`` bytes; closes where it refuses
v1 W   header, ``length`` b.  nothing
v2 R   header                status, then ``length`` bytes where it is OK
v2 W   header, ``length`` b.  status, after the last byte is applied
====== ===================== ==============================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from engine.errors import RemoteProtocolError

HEADER_LENGTH = 24
STATUS_LENGTH = 8
VERSION_BIT = 0x80
STATUS_MAGIC = 0x4D43_5456_0000_0000
LATEST_VERSION = 2

_HEADER = Struct("<QQB7x")
_STATUS = Struct("<Q")
_CODE_MASK = 0xFFFF_FFFF


class Opcode(IntEnum):
    """What a request asks for, seen from the client."""

    READ = 0
    WRITE = 1


class Status(IntEnum):
    """The codes that upstream sends; other codes are valid on the wire, and mean failure too."""

    OK = 0
    ADDRESS_REJECTED = 1


@dataclass(frozen=True, slots=True)
class Request:
    """One header: ``length`` bytes at ``address``, in wire version 1 or 2."""

    opcode: Opcode
    address: int
    length: int
    version: int


def pack_request(address: int, length: int, *, opcode: Opcode = Opcode.READ, version: int = LATEST_VERSION) -> bytes:
    """The 24 bytes of a request; both numbers must fit in 64 bits."""
    return _HEADER.pack(length, address, opcode | VERSION_BIT if version >= LATEST_VERSION else opcode)


def unpack_request(data: bytes | bytearray | memoryview, *, peer: str, offset: int = 0) -> Request:
    """The request in the 24 bytes at ``offset``. Raises ``RemoteProtocolError`` for an unknown opcode."""
    if len(data) - offset < HEADER_LENGTH:
        raise RemoteProtocolError(peer=peer, detail=f"a header of {len(data) - offset} bytes")
    length, address, code = _HEADER.unpack_from(data, offset)
    try:
        opcode = _OPCODES[code & ~VERSION_BIT]
    except KeyError:
        raise RemoteProtocolError(peer=peer, detail=f"unknown opcode {code:#x}") from None
    return Request(opcode, address, length, LATEST_VERSION if code & VERSION_BIT else 1)


def pack_status(code: int) -> bytes:
    """The 8 bytes of a status."""
    return _STATUS.pack(STATUS_MAGIC | code)


def unpack_status(data: bytes | bytearray | memoryview, *, peer: str) -> int:
    """The code in 8 bytes of status. Raises ``RemoteProtocolError`` where the magic is missing."""
    if len(data) != STATUS_LENGTH:
        raise RemoteProtocolError(peer=peer, detail=f"a status of {len(data)} bytes")
    (word,) = _STATUS.unpack(data)
    if word & ~_CODE_MASK != STATUS_MAGIC:
        raise RemoteProtocolError(peer=peer, detail=f"no status word: {word:#018x}")
    return int(word & _CODE_MASK)


_OPCODES = {int(code): code for code in Opcode}
