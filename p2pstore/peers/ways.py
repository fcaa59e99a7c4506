"""The ways from this node to another: control plane, data plane, and each transport that both have.

Of a way that is answered, as much as one request of a get is moved: where the maximum size of packets (MTU) is lower
somewhere on the way, and nobody says so, small ones pass and large ones vanish.

An agent runs these for ``mooncake doctor PEER``, and asks the peer to run them back.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import Any

from engine.errors import MooncakeError, PeerStalled, PeerUnreachable, RangeRefused, TransportUnavailable
from engine.net.within import within
from engine.transports.base import Channel, PeerAddress, Sink
from p2pstore.cluster.records import NodeRecord, peer_address
from p2pstore.errors import NodeNotFound, NotHeld, PeerNameUnknown
from p2pstore.holding.parts import Parts
from p2pstore.objects.units import format_size
from p2pstore.peers.checks import Check, check_of, failed, ok, warning

PATH_SECONDS = 15.0
"""For one way to be tried."""

MOVE_SECONDS = 15.0
"""For data to be moved over a way: what has come by then, and still comes, is enough to know."""

STILL_SECONDS = 5.0
"""So long without a byte, and the way counts as broken."""

CONNECT_SECONDS = 5.0

ROOM_BYTES = 16 * 1024

IP_MTU = 14
IPV6_MTU = 24
"""Options of a socket, from Linux's headers; Python has no names for them."""

MTU_ADVICE = (
    "small packets pass and large ones do not: give both cards the MTU of the narrowest network between them "
    "('ip link set dev CARD mtu 1500'), or let ICMP's 'fragmentation needed' through; "
    "'ping -M do -s 1472 HOST' tries a size"
)
"""What to do about a way that is answered, over which no data come."""

NO_ADDRESS = 0
"""An address of no segment: a peer that refuses to serve it has been reached, and speaks the protocol."""

LISTENS = "check that its agent listens on an address that we reach ('mooncake node status' there), and firewalls"
"""What to do about a control plane that does not answer."""

OTHER_PORTS = "look for a firewall between the two: data goes over other ports than control"
"""What to do about a data plane that does not answer, where the control plane did."""


async def both_ways(parts: Parts, peer: str) -> list[Check]:
    """From this node to a peer, which is a node's name or a control address, and back."""
    try:
        control = await parts.registry.control_of(peer)
    except NodeNotFound as error:
        return [failed(f"node {peer}", str(error), error.hint, error.exit_code)]
    checks, record = await there(parts, control)
    if record is None:
        return checks
    back = f"{record.node} to {parts.name}"
    try:
        answers = await parts.client.check_back(control, parts.record.control)
    except MooncakeError as error:
        return [*checks, failed(back, str(error), error.hint, error.exit_code)]
    return [*checks, *(check_of(answer) for answer in answers)]


async def there(parts: Parts, control: str) -> tuple[list[Check], NodeRecord | None]:
    """From this node to the one at a control address; None where that does not answer."""
    subject = f"{parts.name} to {control}"
    began = time.monotonic()
    try:
        record = await within(parts.client.node(control), PATH_SECONDS)
    except MooncakeError as error:
        return [failed(subject, str(error), _advice(error, LISTENS), error.exit_code)], None
    except asyncio.TimeoutError:
        return [failed(subject, f"no answer in {PATH_SECONDS:g} s", "look for a firewall between the two", 5)], None
    pair = f"{parts.name} to {record.node}"
    checks = [ok(f"{pair}, control", f"{control} answers in {1000 * (time.monotonic() - began):.1f} ms")]
    try:
        peer = replace(peer_address(record), key=await parts.client.key(control))
        sample = await parts.client.sample(control)
    except MooncakeError as error:
        return [*checks, failed(f"{pair}, data", str(error), error.hint, error.exit_code)], record
    for name in ("tcp", "local", "rdma"):
        checks += await _try(parts, pair, name, peer, None if name == "local" else sample)
    return checks, record


async def _try(parts: Parts, pair: str, name: str, peer: PeerAddress, sample: tuple[int, int] | None) -> list[Check]:
    """What one transport does: no peer on this host needs a network, so that it is only knocked at."""
    subject = f"{pair}, {name}"
    try:
        why_not = await asyncio.to_thread(parts.engine.transport(name).usable, peer)
        if why_not:
            # Nobody expects these between any two nodes.
            return [] if name == "local" else [warning(subject, f"not used: {why_not}")]
        began = time.monotonic()
        await within(asyncio.to_thread(_knock, parts, name, peer), PATH_SECONDS)
    except TransportUnavailable as error:
        return [warning(subject, str(error), error.hint)]
    except MooncakeError as error:
        return [failed(subject, str(error), _advice(error, OTHER_PORTS), error.exit_code)]
    except asyncio.TimeoutError:
        return [failed(subject, f"no answer in {PATH_SECONDS:g} s", "look for a firewall between the two", 5)]
    answered = f"answers in {1000 * (time.monotonic() - began):.1f} ms"
    if sample is None:
        return [ok(subject, answered)]
    return [await _moved(parts, subject, name, peer, sample, answered)]


async def _moved(
    parts: Parts, subject: str, name: str, peer: PeerAddress, sample: tuple[int, int], answered: str
) -> Check:
    """Whether data come over a way that is answered."""
    address, length = sample
    began = time.monotonic()
    sink = _Counting()
    try:
        channel = await asyncio.to_thread(parts.engine.open, peer, name)
        moving = asyncio.ensure_future(asyncio.to_thread(_move, channel, address, length, sink))
        came = -1
        while not moving.done() and sink.came != came and time.monotonic() - began < MOVE_SECONDS:
            came = sink.came
            await asyncio.wait({moving}, timeout=STILL_SECONDS)
        broken_off = not moving.done()
        slow = broken_off and sink.came > came
        if broken_off:
            await asyncio.to_thread(channel.close)
        try:
            await moving
        except MooncakeError:
            if not broken_off:
                raise
    except MooncakeError as error:
        return failed(subject, f"{answered}, and {error}", _advice(error, OTHER_PORTS), error.exit_code)
    seconds = time.monotonic() - began
    rate = f"{format_size(sink.came / seconds)}/s"
    if sink.came == length or slow:
        return ok(subject, f"{answered}, {format_size(sink.came)} came at {rate}")
    mtu = await asyncio.to_thread(_mtu, peer)
    found = f"{answered}, but of {format_size(length)} only {format_size(sink.came)} came in {seconds:.0f} s"
    size = f", and packets here have up to {mtu} bytes (MTU)" if mtu else ""
    return failed(subject, found + size, MTU_ADVICE, PeerStalled.exit_code)


def _move(channel: Channel, address: int, length: int, sink: _Counting) -> None:
    try:
        channel.submit(address, length)
        channel.receive(sink)
    finally:
        channel.close()


def _mtu(peer: PeerAddress) -> int:
    """The size of packets that the kernel takes for the way to a peer; 0 where it does not say."""
    try:
        with socket.create_connection((peer.host, peer.data_port), timeout=CONNECT_SECONDS) as sock:
            if sock.family == socket.AF_INET6:
                return sock.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
            return sock.getsockopt(socket.IPPROTO_IP, IP_MTU)
    except OSError:
        return 0


def _advice(error: MooncakeError, network: str) -> str:
    """What to do about a way that failed: ``network`` where nothing answered, else what the error itself advises."""
    silent = isinstance(error, (PeerUnreachable, PeerStalled)) and not isinstance(error, PeerNameUnknown)
    return network if silent else error.hint


def _knock(parts: Parts, name: str, peer: PeerAddress) -> None:
    """Ask for what nobody serves: to be refused is an answer."""
    channel = parts.engine.open(peer, name)
    try:
        channel.submit(NO_ADDRESS, 1)
        channel.receive(_Nothing())
    except (RangeRefused, NotHeld):
        pass
    finally:
        channel.close()


class _Counting(Sink):
    """A sink that throws away what comes, and counts it."""

    def __init__(self) -> None:
        self.came = 0
        self._room = memoryview(bytearray(ROOM_BYTES))

    def buffer(self, remaining: int) -> memoryview:
        """See ``Sink.buffer``."""
        return self._room[: min(remaining, ROOM_BYTES)]

    def filled(self, count: int) -> None:
        """See ``Sink.filled``."""
        self.came += count


class _Nothing(Sink):
    """A sink that expects no bytes."""

    def buffer(self, remaining: int) -> memoryview:
        """See ``Sink.buffer``."""
        return memoryview(bytearray(min(remaining, 1)))

    def filled(self, count: int) -> None:
        """See ``Sink.filled``."""


def to_json(checks: list[Check]) -> list[dict[str, Any]]:
    """As a document."""
    return [check.to_json() for check in checks]
