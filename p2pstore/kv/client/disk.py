"""A client's disk in the pool: it writes there what the master asks for, tells what is there, and brings it back.

All of it is done by one thread, about once a second, in the calls of upstream's clients: so either master can use it.
What is on the disk when the client starts is told the master again, and so it is after the master has forgotten it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.net import addresses
from engine.net.threads import Failure, Threads
from engine.rpc.codes import Code
from engine.rpc.disk_calls import stored_name, tenant_and_key
from engine.rpc.messages import DEFAULT_TENANT, Kind, Memory, OffloadItem, Replica, Replicas, Status, StoredObject
from p2pstore.kv.client import checksums
from p2pstore.kv.client.disk_server import DiskServer
from p2pstore.kv.client.plane import Piece
from p2pstore.kv.errors import MasterUnavailable
from p2pstore.kv.tiers.log import Log

if TYPE_CHECKING:
    from p2pstore.kv.client.master import Master
    from p2pstore.kv.client.plane import DataPlane

EVERY_SECONDS = 1.0
"""Between two looks at what the master wants."""

AGAIN_SECONDS = 30.0
"""After a disk that failed, or a master that takes no disks: until then nothing is written."""

TOLD_AT_ONCE = 500
"""Values that are told the master in one call."""

TELL_AGAIN_SECONDS = (20.0, 75.0)
"""After it was told what was here before: a master may still know the client that was, and take no other's word.

By then it has missed its pings, for the usual time to live and for that of the configuration which upstream ships.
"""

MAX_LOST = 100_000
"""Values that could not be read, which the master is still to be told of."""

END_SECONDS = 10.0
"""For what is being written to end."""

NOT_STORED = -1
"""The size of a value that was not written."""

log = logging.getLogger(__name__)


class Disk:
    """Lives from ``start`` to ``stop``."""

    def __init__(self, directory: Path, limit: int, master: Master, plane: DataPlane, *, bind: str | None) -> None:
        """Take the directory, and listen for others. Raises as ``Log``, and ``UsageError``."""
        self._master = master
        self._plane = plane
        self._log = Log(directory, limit)
        host = plane.endpoint.rpartition(":")[0]
        try:
            self._server = DiskServer(bind or host.strip("[]"), plane, self.read_into, self.size)
        except BaseException:
            self._log.close()
            raise
        self.endpoint = addresses.join(host.strip("[]"), self._server.port)
        self._threads = Threads()
        self._ending = threading.Event()
        self._lost: deque[str] = deque(maxlen=MAX_LOST)
        self._loaded = self._mounted = False
        self._failing = ""
        self._not_before = 0.0
        self._before: dict[str, int] = {}
        self._tell_again: list[float] = []
        self.written = 0
        """Values that were written to the disk."""
        self.promoted = 0
        """Values that were brought back to memory."""

    def __len__(self) -> int:
        return len(self._log)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong that nobody foresaw."""
        return (*self._threads.failures, *self._server.failures)

    @property
    def mounted(self) -> bool:
        """Whether the master knows of it."""
        return self._mounted

    @property
    def failing(self) -> str:
        """Why nothing is written now, in words; empty while it is."""
        return self._failing

    def start(self) -> None:
        """Raises ``UsageError`` where the system refuses a thread."""
        self._threads.must_serve("store disk", self._step)

    def leave(self) -> None:
        """Offer it to the pool no more; what lies there stays, and is served to who still asks. Raises as calls do."""
        self._ending.set()
        self._threads.stop()
        self._threads.join(END_SECONDS)
        if self._mounted:
            self._master.call("UnmountLocalDiskSegment", self._master.client)
            self._mounted = False

    def stop(self) -> None:
        """End, and let the directory go. Twice is harmless."""
        self._ending.set()
        self._threads.stop()
        self._server.close()
        if not self._threads.join(END_SECONDS):
            log.warning("the disk has not taken what is being written within %g s", END_SECONDS)
        self._log.close()

    def size(self, name: str) -> int | None:
        """Bytes of a value, by its name on the disk; None where there is none."""
        return self._log.size(self._known(name))

    def read_into(self, name: str, view: memoryview) -> bool:
        """Fill memory with a value; false where it is not there, or not whole: then the master is told."""
        name = self._known(name)
        if self._log.read_into(name, view):
            return True
        self._lost.append(name)
        return False

    def _known(self, name: str) -> str:
        """The name that a value has here.

        A master without tenants puts all into the default one, and releases before 0.3.12 name the key alone.
        """
        if self._log.size(name) is not None:
            return name
        return stored_name(DEFAULT_TENANT, tenant_and_key(name)[1])

    # -- what is done about once a second

    def _step(self) -> bool:
        if not self._loaded:
            self._log.load(self._ending.is_set)
            self._before = self._log.sizes()
            self._tell_again = [time.monotonic() + each for each in TELL_AGAIN_SECONDS]
            self._loaded = True
        if not self._master.why_not:
            with contextlib.suppress(MasterUnavailable):
                self._work()
        return not self._ending.wait(EVERY_SECONDS)

    def _work(self) -> None:
        """One round. Raises ``MasterUnavailable``."""
        client, call = self._master.client, self._master.call
        if not self._mounted and not self._mount():
            return
        if self._tell_again and time.monotonic() >= self._tell_again[0]:
            del self._tell_again[0]
            self._tell_all(self._before)
        taking = time.monotonic() >= self._not_before
        items = call("OffloadObjectHeartbeat", client, taking)
        if items is Code.NO_SEGMENT:  # a master that was started anew, or forgot us
            self._mounted = False
            return
        if call("PollRemoveAll", client) is True:
            self._log.clear()
        if isinstance(items, list) and items:
            self._offload(items)
        self._tell_lost()
        items = call("PromotionObjectHeartbeat", client)
        for item in items if isinstance(items, list) else ():
            self._promote(item)

    def _mount(self) -> bool:
        if time.monotonic() < self._not_before and not self._failing:
            return False
        code = self._master.call("MountLocalDiskSegment", self._master.client, True)
        if code is not Code.OK:
            if not self._not_before:
                log.warning(
                    "the store's master uses no disks of clients (%s): start it with --enable_offload", code.sentence
                )
            self._not_before = time.monotonic() + AGAIN_SECONDS
            return False
        self._not_before = 0.0
        self._mounted = True
        self._master.call("ReportSsdCapacity", self._master.client, self._log.capacity)
        self._tell_all(self._log.sizes())
        return True

    def _tell_all(self, sizes: Mapping[str, int]) -> None:
        """Tell the master what is here, as far as it still is."""
        items = [
            OffloadItem(*tenant_and_key(name), size) for name, size in sizes.items() if self._log.size(name) == size
        ]
        for start in range(0, len(items), TOLD_AT_ONCE):
            some = items[start : start + TOLD_AT_ONCE]
            self._tell(some, [item.size for item in some])

    def _offload(self, items: Sequence[OffloadItem]) -> None:
        """Write values, and tell the master of each whether it is there."""
        by_tenant: dict[str, list[OffloadItem]] = {}
        for item in items:
            by_tenant.setdefault(item.tenant, []).append(item)
        for tenant, some in by_tenant.items():
            for start in range(0, len(some), TOLD_AT_ONCE):
                self._offload_some(tenant, some[start : start + TOLD_AT_ONCE])

    def _offload_some(self, tenant: str, items: Sequence[OffloadItem]) -> None:
        found = self._master.call("BatchGetReplicaList", [item.key for item in items], tenant)
        if isinstance(found, Code) or len(found) != len(items):
            found = [Code.NOT_FOUND] * len(items)
        sizes, left = [], []
        for item, replicas in zip(items, found, strict=True):
            view = None if isinstance(replicas, Code) else self._own(replicas, item.size)
            if view is None:
                sizes.append(NOT_STORED)
                continue
            name = stored_name(item.tenant, item.key)
            if self._log.holds(name, view):
                sizes.append(item.size)
                continue
            written = self._log.write(name, view)
            left += written.left
            sizes.append(NOT_STORED if written.why else item.size)
            self.written += not written.why
            self._note(written.why)
        self._tell_gone(left)
        self._tell(items, sizes)

    def _own(self, replicas: Replicas, size: int) -> memoryview | None:
        """A value in our own memory, if it is what was put."""
        for _, place, status in replicas.replicas:
            if status != Status.COMPLETE or not isinstance(place, Memory) or place.size != size:
                continue
            view = self._plane.in_place(place.endpoint, place.address, size)
            if view is not None and (replicas.checksum is None or checksums.is_right([view], replicas.checksum)):
                return view
        return None

    def _promote(self, item: OffloadItem) -> None:
        """Bring a value back to memory."""
        client, call = self._master.client, self._master.call
        name = stored_name(item.tenant, item.key)
        why = ""
        replica = call("PromotionAllocStart", client, item.key, item.tenant, item.size, [])
        if isinstance(replica, Replica) and isinstance(replica.place, Memory):
            view = memoryview(bytearray(item.size))
            if self.read_into(name, view):
                (fault,) = self._plane.write([Piece(replica.place.endpoint, replica.place.address, view)])
                why = "" if fault is None else str(fault)
            else:
                why = "it is not on the disk"
        else:
            why = replica.sentence if isinstance(replica, Code) else "it is given no memory"
        if not why:
            code = call("NotifyPromotionSuccess", client, item.key, item.tenant)
            why = "" if code is Code.OK else code.sentence
        if why:
            log.info("%r was not brought back to memory: %s", item.key, why)
            call("NotifyPromotionFailure", client, item.key, item.tenant)
        self.promoted += not why

    # -- what the master is told

    def _tell(self, items: Sequence[OffloadItem], sizes: Sequence[int]) -> None:
        stored = [
            StoredObject(0, 0, len(item.key.encode()), size, self.endpoint)
            for item, size in zip(items, sizes, strict=True)
        ]
        code = self._master.call("NotifyOffloadSuccess", self._master.client, list(items), stored)
        if code is Code.NO_SEGMENT:
            self._mounted = False

    def _tell_lost(self) -> None:
        lost: list[str] = []
        while self._lost:
            name = self._lost.popleft()
            if self._log.size(name) is None:
                lost.append(name)
        self._tell_gone(lost)

    def _tell_gone(self, names: Sequence[str]) -> None:
        by_tenant: dict[str, list[str]] = {}
        for name in names:
            tenant, key = tenant_and_key(name)
            by_tenant.setdefault(tenant, []).append(key)
        for tenant, keys in by_tenant.items():
            self._master.call("BatchEvictDiskReplica", self._master.client, keys, tenant, Kind.LOCAL_DISK)

    def _note(self, why: str) -> None:
        if why and why != self._failing:
            log.error("values are not written to %s: %s", self._log.directory, why)
        if why:
            self._not_before = time.monotonic() + AGAIN_SECONDS
        elif self._failing:
            log.info("values are written to %s again", self._log.directory)
        self._failing = why
