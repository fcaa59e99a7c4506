"""The ways from this node to another: control plane, data plane, and each transport that both have.

An agent runs these for ``mooncake doctor PEER``, and asks the peer to run them back.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from engine.errors import MooncakeError, PeerStalled, PeerUnreachable, RangeRefused, TransportUnavailable
from engine.transports.base import PeerAddress, Sink
from p2pstore.cluster.records import NodeRecord, peer_address
from p2pstore.errors import NodeNotFound, NotHeld
from p2pstore.holding.parts import Parts
from p2pstore.peers.checks import Check, check_of, failed, ok, warning

PATH_SECONDS = 15.0
"""For one way to be tried."""

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
        record = await asyncio.wait_for(parts.client.node(control), PATH_SECONDS)
    except MooncakeError as error:
        return [failed(subject, str(error), _advice(error, LISTENS), error.exit_code)], None
    except asyncio.TimeoutError:
        return [failed(subject, f"no answer in {PATH_SECONDS:g} s", "look for a firewall between the two", 5)], None
    pair = f"{parts.name} to {record.node}"
    checks = [ok(f"{pair}, control", f"{control} answers in {1000 * (time.monotonic() - began):.1f} ms")]
    try:
        peer = replace(peer_address(record), key=await parts.client.key(control))
    except MooncakeError as error:
        return [*checks, failed(f"{pair}, data", str(error), error.hint, 5)], record
    for name in ("tcp", "local", "rdma"):
        checks += await _try(parts, pair, name, peer)
    return checks, record


async def _try(parts: Parts, pair: str, name: str, peer: PeerAddress) -> list[Check]:
    subject = f"{pair}, {name}"
    try:
        why_not = await asyncio.to_thread(parts.engine.transport(name).usable, peer)
        if why_not:
            # Nobody expects these between any two nodes.
            return [] if name == "local" else [warning(subject, f"not used: {why_not}")]
        began = time.monotonic()
        await asyncio.wait_for(asyncio.to_thread(_knock, parts, name, peer), PATH_SECONDS)
    except TransportUnavailable as error:
        return [warning(subject, str(error), error.hint)]
    except MooncakeError as error:
        return [failed(subject, str(error), _advice(error, OTHER_PORTS), error.exit_code)]
    except asyncio.TimeoutError:
        return [failed(subject, f"no answer in {PATH_SECONDS:g} s", "look for a firewall between the two", 5)]
    return [ok(subject, f"answers in {1000 * (time.monotonic() - began):.1f} ms")]


def _advice(error: MooncakeError, network: str) -> str:
    """What to do about a way that failed: ``network`` where nothing answered, else what the error itself advises."""
    return network if isinstance(error, (PeerUnreachable, PeerStalled)) else error.hint


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
