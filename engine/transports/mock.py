"""A transport without a network: reads from an address space of this process, with faults to order.

A script says what happens to each request in turn, over all channels, in the order in which they are received. It is
text of one letter a request, or a list of words; when it has run out, everything succeeds:

====== ============ ==========================================================
letter word         what happens
====== ============ ==========================================================
``.``  ``ok``       the bytes come
``x``  ``wrong``    bytes come, the last of them wrong
``s``  ``stall``    nothing comes for ``stall_seconds``: ``PeerStalled``
``r``  ``refuse``   ``RangeRefused``
``d``  ``die:N``    ``PeerUnreachable`` after N bytes; the letter: after half
``g``  ``garbage``  ``RemoteProtocolError``
====== ============ ==========================================================
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence

from engine.errors import (
    AddressError,
    PeerStalled,
    PeerUnreachable,
    RangeRefused,
    RemoteProtocolError,
    UsageError,
)
from engine.memory.address_space import AddressSpace
from engine.memory.region import Region
from engine.transports.base import Channel, PeerAddress, Sink, Transport

_LETTERS = {".": "ok", "x": "wrong", "s": "stall", "r": "refuse", "d": "die", "g": "garbage"}
_PIECE = 1 << 16


class MockTransport(Transport):
    """Reads out of an ``AddressSpace``, or out of a mapping of start addresses to bytes, whatever the peer is.

    ``unreachable`` names segments that cannot be opened. ``requests`` records (segment, address, length) as received.
    """

    name = "mock"

    def __init__(
        self,
        memory: AddressSpace | Mapping[int, bytes] | None = None,
        script: str | Sequence[str] = "",
        *,
        unreachable: Sequence[str] = (),
        stall_seconds: float = 0.01,
    ) -> None:
        """Raises ``UsageError`` for a script that is not understood."""
        self.memory: AddressSpace | Mapping[int, bytes] = {} if memory is None else memory
        self.unreachable = set(unreachable)
        self.stall_seconds = stall_seconds
        self.requests: list[tuple[str, int, int]] = []
        self._script = deque(_fault(step) for step in script)
        self._lock = threading.Lock()

    def usable(self, peer: PeerAddress) -> str:  # noqa: ARG002 - every peer will do
        """See ``Transport.usable``."""
        return ""

    def open(self, peer: PeerAddress) -> Channel:
        """See ``Transport.open``."""
        if peer.segment in self.unreachable:
            raise PeerUnreachable(peer=peer.segment, detail="the script says so")
        return MockChannel(self, peer.segment)

    def next_fault(self, peer: str, address: int, length: int) -> str:
        """Record a request and take the script's next step."""
        with self._lock:
            self.requests.append((peer, address, length))
            return self._script.popleft() if self._script else "ok"

    def read(self, address: int, length: int) -> bytes:
        """The true bytes. Raises ``AddressError``."""
        if isinstance(self.memory, AddressSpace):
            out = bytearray(length)
            with self.memory.resolve(address, length) as lease:
                lease.buffer.read_into(lease.offset, memoryview(out))
            return bytes(out)
        for start, data in self.memory.items():
            if start <= address and address + length <= start + len(data):
                return data[address - start : address - start + length]
        raise AddressError(address=address, length=length)


class MockChannel(Channel):
    """One "connection" to a peer."""

    def __init__(self, transport: MockTransport, peer: str) -> None:
        """Made by ``MockTransport.open``."""
        self._transport = transport
        self._peer = peer
        self._submitted: deque[tuple[int, int]] = deque()
        self._closed = threading.Event()

    def submit(self, address: int, length: int, place: Region | None = None) -> None:
        """See ``Channel.submit``."""
        if place is not None:
            place.close()
        if length < 1:
            raise UsageError(detail="a request for no bytes")
        self._check()
        self._submitted.append((address, length))

    def receive(self, sink: Sink) -> None:
        """See ``Channel.receive``."""
        if not self._submitted:
            raise UsageError(detail="nothing was submitted on this channel")
        self._check()
        address, length = self._submitted.popleft()
        try:
            self._receive(sink, address, length, self._transport.next_fault(self._peer, address, length))
        except BaseException:
            self._closed.set()
            raise

    def close(self) -> None:
        """See ``Channel.close``."""
        self._closed.set()

    def _receive(self, sink: Sink, address: int, length: int, fault: str) -> None:
        if fault == "stall":
            self._closed.wait(self._transport.stall_seconds)
            self._check()
            raise PeerStalled(peer=self._peer, seconds=self._transport.stall_seconds)
        if fault == "garbage":
            raise RemoteProtocolError(peer=self._peer, detail="the script says so")
        try:
            data = self._transport.read(address, length)
        except AddressError:
            fault = "refuse"
        if fault == "refuse":
            raise RangeRefused(peer=self._peer, address=address, length=length)
        if fault == "wrong":
            data = data[:-1] + bytes((data[-1] ^ 1,))
        if fault.startswith("die"):
            after = int(fault[4:]) if fault[4:] else length // 2
            self._pour(sink, data[:after], length)
            raise PeerUnreachable(peer=self._peer, detail=f"the script ends it after {after} bytes")
        self._pour(sink, data, length)

    def _pour(self, sink: Sink, data: bytes, length: int) -> None:
        done = 0
        while done < len(data):
            self._check()
            view = sink.buffer(length - done)
            count = min(len(view), len(data) - done, _PIECE)
            view[:count] = data[done : done + count]
            sink.filled(count)
            done += count

    def _check(self) -> None:
        if self._closed.is_set():
            raise PeerUnreachable(peer=self._peer, detail="the channel was closed")


def _fault(step: str) -> str:
    word = _LETTERS.get(step, step)
    name, colon, count = word.partition(":")
    if name not in _LETTERS.values() or (colon and (name != "die" or not count.isdigit())):
        raise UsageError(detail=f"{step!r} is no fault of a mock transport")
    return word
