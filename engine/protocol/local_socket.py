"""The local descriptor protocol: messages, paths and credentials of the Unix socket between two peers on one host.

A packet (``SOCK_SEQPACKET``) is one JSON object. The client sends ``{"address", "length"}``. The server answers with
one packet for each file that the range touches, ``{"offset", "length", "more"}`` with the file's descriptor attached
(``SCM_RIGHTS``); ``more`` is false in the last. ``{"error": "refused" | "memory"}`` ends an answer too: the range is
not served, or lies in memory and has no descriptor, which only memory has that was made to be shared.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_PACKET = 512
"""Bytes of one packet; the longest that this protocol needs has about a hundred."""

REFUSED = "refused"
MEMORY = "memory"

_MAX_U64 = (1 << 64) - 1
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class DescriptorRequest:
    """The client wants descriptors for ``length`` bytes at ``address``."""

    address: int
    length: int

    def pack(self) -> bytes:
        """The packet."""
        return json.dumps({"address": self.address, "length": self.length}).encode()

    @classmethod
    def unpack(cls, packet: bytes, *, peer: str) -> DescriptorRequest:
        """Read a packet. Raises ``RemoteProtocolError``."""
        data = _parse(packet, peer)
        return cls(_number(data, "address", peer), _number(data, "length", peer))


@dataclass(frozen=True, slots=True)
class Grant:
    """``length`` bytes at ``offset`` of the descriptor that came along; ``more`` packets follow, or none."""

    offset: int
    length: int
    more: bool

    def pack(self) -> bytes:
        """The packet."""
        return json.dumps({"offset": self.offset, "length": self.length, "more": self.more}).encode()


def pack_error(reason: str) -> bytes:
    """The packet that says no."""
    return json.dumps({"error": reason}).encode()


def unpack_answer(packet: bytes, *, peer: str) -> Grant | str:
    """A ``Grant``, or the reason why there is none. Raises ``RemoteProtocolError``."""
    data = _parse(packet, peer)
    if "error" in data:
        return str(data["error"])
    length = _number(data, "length", peer)
    if not length:
        raise RemoteProtocolError(peer=peer, detail="a descriptor for no bytes")
    return Grant(_number(data, "offset", peer), length, data.get("more") is True)


def socket_of(segment: str) -> str:
    """The abstract name of the socket at which a segment hands out its shared memory.

    It has no file: nothing of it is left when its process is killed, and it leads nowhere from another network
    namespace. Anybody may listen there or connect, so both ends look at the other's user.
    """
    return f"\0mooncake-segment-{hashlib.sha256(segment.encode()).hexdigest()[:32]}"


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of ``path`` that fits into a socket address, however long ``path`` is. Raises ``OSError``."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def peer_uid(sock: socket.socket) -> int:
    """The user on the other side of a Unix socket, as the kernel knows it."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def _parse(packet: bytes, peer: str) -> dict[str, Any]:
    if len(packet) > MAX_PACKET:
        raise RemoteProtocolError(peer=peer, detail=f"a packet of more than {MAX_PACKET} bytes")
    try:
        data = json.loads(packet)
    except (ValueError, RecursionError):
        raise RemoteProtocolError(peer=peer, detail="a packet that is not JSON") from None
    if not isinstance(data, dict):
        raise RemoteProtocolError(peer=peer, detail="a packet that is no JSON object")
    return data


def _number(data: dict[str, Any], key: str, peer: str) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_U64:
        raise RemoteProtocolError(peer=peer, detail=f"{key!r} is missing, no integer, or out of range")
    return value
