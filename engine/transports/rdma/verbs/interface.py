"""The few verbs that this transport needs, as an interface with three implementations: ctypes, pyverbs and a fake.

Whoever implements it keeps to this: no call blocks for longer than its work takes, ``CompletionQueue.acknowledge`` is
called only when the descriptor is readable, and every object is closed by its owner, children before their context.
What a call fails with is ``VerbsFailed``, or ``LockedMemoryLimit`` where memory may not be pinned.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple, Protocol

from engine.errors import LockedMemoryLimit, TransportUnavailable, VerbsFailed

MAX_DEPTH = 4096
"""Most work requests that one queue is made for."""


class Access(IntFlag):
    """What may be done with a region, or over a queue pair; the values are the verbs'."""

    LOCAL_WRITE = 1
    REMOTE_WRITE = 2
    REMOTE_READ = 4


class WorkOpcode(IntEnum):
    """The one-sided operations; the values are the verbs'."""

    WRITE = 0
    READ = 4


class LinkLayer(IntEnum):
    """What a port is connected to."""

    INFINIBAND = 1
    ETHERNET = 2


class GidType(IntEnum):
    """What a GID stands for on the wire, the least wanted first."""

    INFINIBAND = 0
    ROCE_V1 = 1
    ROCE_V2 = 2


@dataclass(frozen=True, slots=True)
class Gid:
    """One entry of a port's GID table: 16 bytes, and the network interface that it belongs to ("" on InfiniBand)."""

    index: int
    raw: bytes
    type: GidType
    netdev: str = ""


ACTIVE = "ACTIVE"
"""The state of a port that carries traffic."""

PORT_STATES = ("NOP", "DOWN", "INIT", "ARMED", ACTIVE, "ACTIVE_DEFER")


@dataclass(frozen=True, slots=True)
class PortInfo:
    """One port. ``mtu`` and ``max_message`` are in bytes; ``lid`` is 0 on Ethernet."""

    state: str
    link: LinkLayer
    lid: int
    mtu: int
    max_message: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device can hold, and how many READs a queue pair may ask (``initiate``) and answer (``respond``)."""

    ports: int
    queue_pairs: int
    queue_depth: int
    initiate: int
    respond: int
    region_bytes: int


@dataclass(frozen=True, slots=True)
class QueuePairPath:
    """How a queue pair reaches its other end.

    ``gid`` is the peer's, ``gid_index`` ours. ``mtu`` is in bytes. ``timeout`` is the exponent of the verbs' wait for
    an answer (4.096 us times 2 to it), after which is tried ``retries`` times again.
    """

    port: int
    gid_index: int
    gid: bytes
    lid: int
    number: int
    mtu: int
    initiate: int = 16
    respond: int = 16
    packet: int = 0
    hops: int = 16
    service_level: int = 0
    traffic_class: int = 0
    pkey_index: int = 0
    timeout: int = 14
    retries: int = 6


class WorkRequest(NamedTuple):
    """One READ or WRITE: ``length`` bytes between local memory and the peer's."""

    id: int
    opcode: WorkOpcode
    local: int
    lkey: int
    length: int
    remote: int
    rkey: int


class Completion(NamedTuple):
    """How one work request ended; ``status`` 0 is well."""

    id: int
    status: int


class Registration(Protocol):
    """Registered memory. Peers name it by ``rkey`` and ``remote``, the address at which it begins for them."""

    lkey: int
    rkey: int
    remote: int
    length: int

    def close(self) -> None:
        """Deregister it: the device uses it no more. Twice is harmless."""


class CompletionQueue(Protocol):
    """Where the ends of work requests are found."""

    fd: int

    def arm(self) -> None:
        """Have ``fd`` become readable at the next completion."""

    def acknowledge(self) -> None:
        """Take the event that made ``fd`` readable."""

    def poll(self, limit: int) -> list[Completion]:
        """The next completions, at most ``limit``."""

    def close(self) -> None:
        """Destroy it, after its queue pairs. Twice is harmless."""


class QueuePair(Protocol):
    """One reliable connection."""

    number: int

    def connect(self, route: QueuePairPath, access: Access) -> None:
        """Make it ready to send; the peer may do what ``access`` says."""

    def post(self, requests: Sequence[WorkRequest]) -> int:
        """Begin the requests, in order; how many were begun: fewer where the queue is full. Each is signalled."""

    def close(self) -> None:
        """Destroy it; what was under way does not complete. Twice is harmless."""


class Context(Protocol):
    """One opened device, with one protection domain."""

    device: str

    def limits(self) -> Limits:
        """What it can hold."""

    def port(self, number: int) -> PortInfo:
        """One of its ports, from 1."""

    def gids(self, port: int) -> list[Gid]:
        """The port's GIDs, those that are not zero."""

    def completion_queue(self, depth: int) -> CompletionQueue:
        """A queue for ``depth`` completions, with an event channel of its own."""

    def queue_pair(self, queue: CompletionQueue, depth: int) -> QueuePair:
        """A reliable queue pair for ``depth`` work requests."""

    def register(self, address: int, length: int, access: Access, remote: int | None = None) -> Registration:
        """Pin and register memory, which must stay mapped until the region is closed.

        Peers name its start ``remote`` (by default its address), which must agree with it within a page. This takes as
        long as bringing the pages in: callers keep ``length`` bounded.
        """

    def close(self) -> None:
        """Close the device, after everything that was made from it. Twice is harmless."""


class Verbs(Protocol):
    """One implementation."""

    name: str
    remaps: bool
    """Whether ``Context.register`` takes another ``remote`` than the address."""

    def devices(self) -> list[str]:
        """The names of this machine's devices; empty where there are none."""

    def open(self, device: str) -> Context:
        """Open a device."""


class Meaning(NamedTuple):
    """A completion status: the verbs' name, what it means to the user, and who is to blame.

    ``peer`` says that the peer refused the range itself, ``flush`` that the request fell with an earlier one.
    """

    name: str
    says: str
    refused: bool = False
    flush: bool = False


STATUS: dict[int, Meaning] = {
    0: Meaning("SUCCESS", "it went well"),
    1: Meaning("LOC_LEN_ERR", "a message longer than the port carries"),
    2: Meaning("LOC_QP_OP_ERR", "our device rejects the request"),
    4: Meaning("LOC_PROT_ERR", "our own memory is not registered as it must be"),
    5: Meaning("WR_FLUSH_ERR", "it fell with an earlier error of its queue pair", flush=True),
    7: Meaning("BAD_RESP_ERR", "an answer that makes no sense"),
    8: Meaning("LOC_ACCESS_ERR", "our own memory may not be written"),
    9: Meaning("REM_INV_REQ_ERR", "the peer's device rejects the request"),
    10: Meaning("REM_ACCESS_ERR", "the peer does not offer this memory, or not any more", refused=True),
    11: Meaning("REM_OP_ERR", "the peer's device could not carry it out"),
    12: Meaning("RETRY_EXC_ERR", "the peer's device does not answer"),
    13: Meaning("RNR_RETRY_EXC_ERR", "the peer is never ready"),
    18: Meaning("INV_EEC_STATE_ERR", "the connection is in a wrong state"),
    19: Meaning("FATAL_ERR", "our device failed"),
    20: Meaning("RESP_TIMEOUT_ERR", "the answer came too late"),
    21: Meaning("GENERAL_ERR", "our device failed"),
}
"""The completion statuses that a reliable queue pair can have (``ibv_wc_status``)."""


def meaning(status: int) -> Meaning:
    """What a completion status means."""
    return STATUS.get(status) or Meaning(f"status {status}", "our device tells no more")


def failure(call: str, device: str, code: int, *, pinning: int = 0) -> TransportUnavailable:
    """What ``code`` (an errno) of a verbs call means; ``pinning`` are the bytes that it was to pin."""
    if pinning and code in {errno.ENOMEM, errno.EPERM}:
        return LockedMemoryLimit(transport="rdma", device=device, length=pinning, limit=locked_memory_limit())
    words = os.strerror(code) if code else "it failed"
    if pinning and code == errno.EFAULT:
        # Before Linux 6.2 a registration asked for write access to the pages whatever it was for.
        words = "this kind of memory cannot be pinned here (files mapped to be read need Linux 6.2 or newer)"
    return VerbsFailed(transport="rdma", device=device, call=call, detail=words)


def locked_memory_limit() -> str:
    """This process's limit of locked memory, for people."""
    import resource  # noqa: PLC0415 - for an error message alone

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} bytes"
