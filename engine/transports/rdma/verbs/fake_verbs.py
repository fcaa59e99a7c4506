"""Verbs without a device: real memory is copied within this process, with faults to order. For tests of the logic.

A ``Fabric`` is the network: contexts of one fabric reach each other by the queue pairs' numbers. What a real device
checks is checked here: that both ends are connected to each other, keys, ranges, access, the depth of queues.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.transports.rdma.verbs.interface import (
    ACTIVE,
    Access,
    Completion,
    Gid,
    GidType,
    Limits,
    LinkLayer,
    PortInfo,
    QueuePairPath,
    WorkOpcode,
    WorkRequest,
    failure,
)

LOCAL_PROTECTION, FLUSHED, REMOTE_ACCESS, NO_ANSWER = 4, 5, 10, 12
"""Completion statuses that it gives."""


def mapped_gid(address: str) -> bytes:
    """The GID of an IPv4 address."""
    return bytes(10) + b"\xff\xff" + bytes(int(part) for part in address.split("."))


@dataclass
class FakeDevice:
    """What a device is to look like. ``pinnable`` are the bytes that may be registered in one region."""

    name: str
    address: str
    state: str = ACTIVE
    gids: list[Gid] = field(default_factory=list)
    limits: Limits = field(default_factory=lambda: Limits(1, 1000, 256, 16, 16, 1 << 40))
    pinnable: int = 1 << 40

    def __post_init__(self) -> None:
        self.gids = self.gids or [Gid(1, mapped_gid(self.address), GidType.ROCE_V2, "")]


class Fabric:
    """All devices, regions and queue pairs. Thread-safe.

    While ``held``, requests that are posted wait; ``release`` lets them go. A device in ``down`` answers nothing.
    ``statuses`` are given to the next requests, whatever they ask.
    """

    def __init__(self, devices: Iterable[FakeDevice]) -> None:
        self.devices = {each.name: each for each in devices}
        self.lock = threading.RLock()
        self.regions: dict[int, FakeRegistration] = {}
        self.pairs: dict[int, FakeQueuePair] = {}
        self.queues: set[FakeCompletionQueue] = set()
        self.contexts = 0
        self.down: set[str] = set()
        self.statuses: deque[int] = deque()
        self.held = False
        self.moved: dict[tuple[str, str], int] = {}
        self.keys = itertools.count(0x1000)
        self.numbers = itertools.count(17)

    def release(self) -> None:
        """Carry out what waits, and hold back nothing more."""
        with self.lock:
            self.held = False
            for pair in list(self.pairs.values()):
                pair.run()

    @property
    def left(self) -> int:
        """Regions, queue pairs, queues and contexts that were not closed."""
        return len(self.regions) + len(self.pairs) + len(self.queues) + self.contexts


class FakeVerbs:
    """See ``Verbs``. A view of the fabric that has the named devices."""

    name = "fake"

    def __init__(self, fabric: Fabric, devices: Sequence[str] = (), *, remaps: bool = True) -> None:
        self.fabric = fabric
        self.remaps = remaps
        self._devices = list(devices) or list(fabric.devices)

    def devices(self) -> list[str]:
        """See ``Verbs.devices``."""
        return list(self._devices)

    def open(self, device: str) -> FakeContext:
        """See ``Verbs.open``."""
        if device not in self._devices:
            raise failure("open", device, errno.ENODEV)
        return FakeContext(self.fabric, self.fabric.devices[device])


class FakeContext:
    """See ``Context``."""

    def __init__(self, fabric: Fabric, device: FakeDevice) -> None:
        self.device = device.name
        self.fabric = fabric
        self._device = device
        self._closed = False
        with fabric.lock:
            fabric.contexts += 1

    def limits(self) -> Limits:
        """See ``Context.limits``."""
        return self._device.limits

    def port(self, number: int) -> PortInfo:
        """See ``Context.port``."""
        if number > self._device.limits.ports:
            raise failure("query_port", self.device, errno.EINVAL)
        return PortInfo(self._device.state, LinkLayer.ETHERNET, 0, 4096, 1 << 31)

    def gids(self, port: int) -> list[Gid]:  # noqa: ARG002 - it has one port
        """See ``Context.gids``."""
        return list(self._device.gids)

    def completion_queue(self, depth: int) -> FakeCompletionQueue:
        """See ``Context.completion_queue``."""
        return FakeCompletionQueue(self.fabric, depth)

    def queue_pair(self, queue: FakeCompletionQueue, depth: int) -> FakeQueuePair:
        """See ``Context.queue_pair``."""
        with self.fabric.lock:
            ours = sum(1 for pair in self.fabric.pairs.values() if pair.device == self.device)
        if ours >= self._device.limits.queue_pairs:
            raise failure("create_qp", self.device, errno.ENOMEM)
        return FakeQueuePair(self.fabric, self.device, queue, depth)

    def register(self, address: int, length: int, access: Access, remote: int | None = None) -> FakeRegistration:
        """See ``Context.register``."""
        if length > self._device.pinnable:
            raise failure("reg_mr", self.device, errno.ENOMEM, pinning=length)
        return FakeRegistration(self.fabric, address, length, access, address if remote is None else remote)

    def close(self) -> None:
        """See ``Context.close``."""
        if not self._closed:
            self._closed = True
            with self.fabric.lock:
                self.fabric.contexts -= 1


class FakeRegistration:
    """See ``Registration``. One key serves for both ends."""

    def __init__(self, fabric: Fabric, address: int, length: int, access: Access, remote: int) -> None:
        self._fabric = fabric
        self.address, self.length, self.access, self.remote = address, length, access, remote
        with fabric.lock:
            self.lkey = self.rkey = next(fabric.keys)
            fabric.regions[self.rkey] = self

    def close(self) -> None:
        """See ``Registration.close``."""
        with self._fabric.lock:
            self._fabric.regions.pop(self.rkey, None)


class FakeCompletionQueue:
    """See ``CompletionQueue``."""

    def __init__(self, fabric: Fabric, depth: int) -> None:
        self._fabric = fabric
        self._depth = depth
        self._found: deque[Completion] = deque()
        self._armed = False
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with fabric.lock:
            fabric.queues.add(self)

    def put(self, completion: Completion) -> None:
        """One more; the fabric's lock is held. An overrun is an error of the caller's, as with real devices."""
        if len(self._found) >= self._depth:
            raise OverflowError("a completion queue overran")
        self._found.append(completion)
        if self._armed:
            self._armed = False
            os.eventfd_write(self.fd, 1)

    def arm(self) -> None:
        """See ``CompletionQueue.arm``."""
        with self._fabric.lock:
            self._armed = True

    def acknowledge(self) -> None:
        """See ``CompletionQueue.acknowledge``."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def poll(self, limit: int) -> list[Completion]:
        """See ``CompletionQueue.poll``."""
        with self._fabric.lock:
            return [self._found.popleft() for _ in range(min(limit, len(self._found)))]

    def close(self) -> None:
        """See ``CompletionQueue.close``."""
        with self._fabric.lock:
            if self in self._fabric.queues:
                self._fabric.queues.discard(self)
                os.close(self.fd)


class FakeQueuePair:
    """See ``QueuePair``."""

    def __init__(self, fabric: Fabric, device: str, queue: FakeCompletionQueue, depth: int) -> None:
        self.device = device
        self._fabric = fabric
        self._queue = queue
        self._depth = depth
        self._waiting: deque[WorkRequest] = deque()
        self._dead = False
        self.peer = 0
        self.access = Access(0)
        with fabric.lock:
            self.number = next(fabric.numbers)
            fabric.pairs[self.number] = self

    def connect(self, route: QueuePairPath, access: Access) -> None:
        """See ``QueuePair.connect``."""
        if route.gid not in {gid.raw for each in self._fabric.devices.values() for gid in each.gids}:
            raise failure("modify_qp", self.device, errno.ENETUNREACH)
        self.peer, self.access = route.number, access

    def post(self, requests: Sequence[WorkRequest]) -> int:
        """See ``QueuePair.post``."""
        with self._fabric.lock:
            if self.number not in self._fabric.pairs or not self.peer:
                raise failure("post_send", self.device, errno.EINVAL)
            count = min(len(requests), self._depth - len(self._waiting))
            self._waiting.extend(requests[:count])
            self.run()
            return count

    def run(self) -> None:
        """Carry out what waits, unless the fabric holds it; its lock is held."""
        while self._waiting and not self._fabric.held:
            request = self._waiting.popleft()
            status = FLUSHED if self._dead else self._carry_out(request)
            self._dead = self._dead or bool(status)
            self._queue.put(Completion(request.id, status))

    def _carry_out(self, request: WorkRequest) -> int:
        fabric = self._fabric
        if fabric.statuses and (status := fabric.statuses.popleft()):
            return status
        peer = fabric.pairs.get(self.peer)
        if peer is None or peer.peer != self.number or {self.device, peer.device} & fabric.down:
            return NO_ANSWER
        reads = request.opcode is WorkOpcode.READ
        local = _find(fabric, request.lkey, request.local, request.length)
        if local is None or (reads and not local.access & Access.LOCAL_WRITE):
            return LOCAL_PROTECTION
        wanted = Access.REMOTE_READ if reads else Access.REMOTE_WRITE
        remote = _find(fabric, request.rkey, request.remote, request.length)
        if remote is None or not remote.access & wanted or not peer.access & wanted:
            return REMOTE_ACCESS
        there = request.remote - remote.remote + remote.address
        here = request.local - local.remote + local.address
        ctypes.memmove(*((here, there) if reads else (there, here)), request.length)
        key = (self.device, peer.device)
        fabric.moved[key] = fabric.moved.get(key, 0) + request.length
        return 0

    def close(self) -> None:
        """See ``QueuePair.close``."""
        with self._fabric.lock:
            self._waiting.clear()
            self._fabric.pairs.pop(self.number, None)


def _find(fabric: Fabric, key: int, start: int, length: int) -> FakeRegistration | None:
    """The region of a key, where the range lies in it: both ends name it by the address it was registered under."""
    region = fabric.regions.get(key)
    if region is None:
        return None
    return region if region.remote <= start and start + length <= region.remote + region.length else None
