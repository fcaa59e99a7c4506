"""One client of the pool: its parts, their beginning and their end. ``Store`` and the compatible class stand on it."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, NoReturn

from engine import forks
from engine.errors import UsageError
from engine.net.closing import Closing
from engine.net.threads import Failure
from engine.rpc.codes import Code
from engine.rpc.messages import Segment
from p2pstore.kv.client import checksums
from p2pstore.kv.client.disk import Disk
from p2pstore.kv.client.heart import RECONNECT, Heart
from p2pstore.kv.client.master import Master
from p2pstore.kv.client.options import MIN_SEGMENT, StoreOptions
from p2pstore.kv.client.own_name import OwnName
from p2pstore.kv.client.plane import DataPlane
from p2pstore.kv.client.reading import Reader, refused
from p2pstore.kv.client.replicas import DeadEndpoints
from p2pstore.kv.client.reports import Reports
from p2pstore.kv.client.tasks import Tasks
from p2pstore.kv.client.writing import Sum, Writer
from p2pstore.kv.errors import MasterUnavailable

if TYPE_CHECKING:
    from engine.memory.registered import RegisteredMemory

CLOSE_SECONDS = 15.0
"""For the client to end: the master is told, and transfers under way are broken off."""

DRAIN_SECONDS = 2.0
"""For others who are at work in memory that is taken back."""

log = logging.getLogger(__name__)


class Client:
    """A client of the pool. Thread-safe; it lives from its making to ``close``.

    Raises ``MasterUnavailable`` where the master is not found in ``setup_timeout``, ``MasterRefused`` where it does
    not take the memory, ``UsageError``, and what ``TransferEngine`` raises.
    """

    def __init__(self, options: StoreOptions, *, what: str) -> None:
        """``what`` is what errors call it."""
        self.options = options
        if options.segment_size and options.segment_size < MIN_SEGMENT:
            raise UsageError(detail=f"a segment of {options.segment_size} bytes; give at least {MIN_SEGMENT}, or none")
        self.id = os.urandom(16)
        self.dead = DeadEndpoints(time.monotonic)
        self.master = Master(options.master, client=self.id, tenant=options.tenant)
        self.reports = Reports(self.dead, self.master)
        self._mounted: dict[bytes, tuple[Segment, RegisteredMemory]] = {}
        self._leaving: list[tuple[float, RegisteredMemory]] = []
        self._own_name = OwnName(options.hostname, options.metadata)
        try:
            self.plane = DataPlane(
                self._own_name.text,
                options.metadata,
                protocol=options.protocol,
                devices=options.devices,
                bind=options.bind,
                neighbours=options.neighbours,
                ports=options.ports,
            )
        except BaseException:
            self._own_name.close()
            raise
        self.tasks = Tasks(self.master, self.plane)
        self.heart = Heart(self.master, self.segments, self._every_beat, self.tasks.work)
        self.disk: Disk | None = None
        self.closing = Closing(what, self._end)
        try:
            summed = _sum(options.checksum)
            self.reader = Reader(self.master, self.plane, self.reports, verify=summed is not None)
            self.writer = Writer(self.master, self.plane, self.reports, checksum=summed)
            if options.disk is not None:
                self.disk = Disk(options.disk, options.disk_limit, self.master, self.plane, bind=options.bind)
                self.reader.disks.have(self.disk.endpoint, self.disk.read_into)
            self._find_master()
            if options.segment_size:
                self.mount(options.segment_size)
            self.heart.pulse()
            self.heart.start()
            if self.disk is not None:
                self.disk.start()
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> NoReturn:
        forks.refuse_to_be_sent(self.closing.what)

    @property
    def name(self) -> str:
        """This client's name among segments: ``host:port``, which ``preferred_segments`` may hold."""
        return self.plane.endpoint

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in the background that nobody foresaw."""
        disk = () if self.disk is None else self.disk.failures
        return (*self.heart.failures, *self.plane.failures, *disk)

    def segments(self) -> list[Segment]:
        """What this client has given to the pool."""
        return [segment for segment, _ in list(self._mounted.values())]

    def mount(self, size: int) -> bytes:
        """Give ``size`` bytes to the pool; the segment's id. Raises ``MasterRefused``, ``MasterUnavailable``."""
        return self._give(self.plane.offer(size), size)

    def mount_file(self, path: str, size: int, offset: int = 0) -> bytes:
        """The same with part of a file: nobody may cut it short. Raises ``UsageError`` besides."""
        return self._give(self.plane.offer_file(path, size, offset), size)

    def _give(self, memory: RegisteredMemory, size: int) -> bytes:
        segment = Segment(
            os.urandom(16), self.name, memory.address, size, self.name, self.options.protocol, self._host_id()
        )
        try:
            code = self.master.mount(segment)
        except BaseException:
            self.plane.withdraw(memory, timeout=0.0)
            raise
        if code is not Code.OK:
            self.plane.withdraw(memory, timeout=0.0)
            if code is Code.RPC_FAILED:
                raise self._other_release()
            raise refused(f"{size} bytes of memory of {self.name}", code)
        self._mounted[segment.id] = segment, memory
        return segment.id

    def unmount(self, segment: bytes, grace: float = 0.0) -> None:
        """Take memory back from the pool; what lay in it is gone. Raises as ``mount``, ``UsageError``.

        With ``grace``, in seconds, it can be read for so long, and nothing new comes there. Where the master is not
        told, the memory stays in the pool.
        """
        found = self._mounted.pop(segment, None)
        if found is None:
            raise UsageError(detail=f"this client has no segment {segment.hex()}")
        try:
            code = self.master.unmount(segment, grace)
        except BaseException:
            self._mounted[segment] = found
            raise
        if code is Code.OK and grace > 0:
            self._leaving.append((time.monotonic() + grace + DRAIN_SECONDS, found[1]))
            return
        self.plane.withdraw(found[1], timeout=DRAIN_SECONDS)
        if code is not Code.OK:
            raise refused(f"to give back the memory of {self.name}", code)

    def close(self) -> None:
        """Take back all memory, tell the master, and end. Twice is harmless; in a forked child it does nothing."""
        if not self.closing.close(CLOSE_SECONDS):
            log.warning("%s has not ended within %g s", self.closing.what, CLOSE_SECONDS)

    def _every_beat(self) -> None:
        self.plane.forget_gone()
        now = time.monotonic()
        over = [each for each in self._leaving if each[0] <= now]
        for each in over:
            self._leaving.remove(each)
            self.plane.withdraw(each[1], timeout=0.0)

    def _end(self) -> None:
        self.master.close(list(self._mounted), disk=self.disk is not None and self.disk.mounted)
        self._mounted.clear()
        self.heart.stop()
        if self.disk is not None:
            self.disk.stop()
        self.plane.close()
        self._own_name.close()
        self.heart.join()

    def _find_master(self) -> None:
        """Wait for the master, for so long as was said. Raises ``MasterUnavailable``."""
        until = time.monotonic() + self.options.setup_timeout
        attempt = 0
        while not self.master.revive():
            attempt += 1
            pause = RECONNECT.after(attempt)
            if time.monotonic() + pause >= until:
                raise MasterUnavailable(address=self.master.address, detail=self.master.why_not)
            time.sleep(pause)

    def _other_release(self) -> MasterUnavailable:
        detail = "it does not take memory in the form of release 0.3.13: it is of another one, or no master"
        return MasterUnavailable(address=self.master.address, detail=detail)

    def _host_id(self) -> str:
        return self.name.rpartition(":")[0]


def _sum(name: str) -> Sum | None:
    """How checksums are made: by xxh3, or as upstream's clients do where they are told to. Raises ``UsageError``."""
    if name == "none":
        return None
    if name == "crc64" or (name == "xxh3" and checksums.upstreams_wanted()):
        return checksums.crc64
    if name == "xxh3":
        return checksums.xxh3
    raise UsageError(detail=f"no checksum is called {name!r}: there are xxh3, crc64 and none")
