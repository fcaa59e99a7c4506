"""What the engine serves of what a node holds: for each content one replica, at one address, from one place at a time.

All methods but those that say otherwise run on the event loop's thread. What takes the engine long with many files is
noted, and done by ``catch_up`` in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from engine.cuda.device_buffer import DeviceBuffer
from engine.errors import AddressError, GpuFailed, SourceChanged
from engine.memory.buffers import Buffer, FileRun, FilesBuffer
from engine.memory.joined_buffer import JoinedBuffer
from engine.serving.segment_server import SegmentServer
from p2pstore.holding.catalog import Holding
from p2pstore.holding.looks import Suspects
from p2pstore.holding.replica import Replica
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Manifest


class Serving:
    """The replicas that are served, whole or partial, by manifest digest, and where each of the whole ones lies."""

    def __init__(self, engine: SegmentServer, suspects: Suspects) -> None:
        self.replicas: dict[str, Replica] = {}
        self._engine = engine
        self._suspects = suspects
        self._loop = asyncio.get_running_loop()
        self._served: dict[str, Holding] = {}
        self.whole_bytes = 0
        """Of all contents that are served whole, each once."""
        self._to_do: list[Callable[[], object]] = []  # by the engine, in a thread

    def close(self) -> None:
        """Serve nothing any more: the node ends, and the engine with it."""
        for replica in self.replicas.values():
            replica.withdrawn()
        self.replicas.clear()

    @property
    def whole(self) -> int:
        """How many contents are served whole."""
        return len(self._served)

    @property
    def partial(self) -> int:
        """How many contents are served in part."""
        return max(0, len(self.replicas) - len(self._served))

    def served(self, digest: str) -> Holding | None:
        """The holding from which that content is served."""
        return self._served.get(digest)

    def read(self, digest: str, offset: int, view: memoryview) -> bool:
        """Fill ``view`` from a replica of this node; False where it does not serve that any more. Any thread."""
        replica = self.replicas.get(digest)
        if replica is None or not replica.address:
            return False
        try:
            with self._engine.lease(replica.address + offset, len(view)) as lease:
                lease.buffer.read_into(lease.offset, view)
        except (AddressError, SourceChanged, GpuFailed):
            return False
        return True

    def file_run(self, digest: str, offset: int, length: int) -> FileRun | None:
        """A descriptor of the file that holds the first of these bytes of a replica; None where there is none."""
        replica = self.replicas.get(digest)
        if replica is None or not replica.address:
            return None
        try:
            with self._engine.lease(replica.address + offset, length) as lease:
                return lease.buffer.file_run(lease.offset, length)
        except (AddressError, SourceChanged):
            return None

    def buffer(self, holding: Holding, manifest: Manifest) -> Buffer | None:
        """What a holding is served from; None where it is empty. Any thread."""
        if not manifest.size:
            return None
        if holding.root is None:
            views = [view[:] for view in holding.views]
            host = [view for view in views if isinstance(view, memoryview)]
            if len(host) < len(views):
                return DeviceBuffer(manifest.digest, views, on_lost=self._suspects.lost)
            return JoinedBuffer(manifest.digest, host)
        suspects = self._suspects
        return FilesBuffer(
            manifest.digest, holding.spans, on_changed=suspects.changed, on_unreadable=suspects.unreadable
        )

    def serve(self, holding: Holding, manifest: Manifest, buffer: Buffer | None) -> None:
        """Serve a holding from its ``buffer``, unless its content is served from another place."""
        digest = manifest.digest
        replica = self.replicas.get(digest)
        serving = self._served.get(digest)
        # The same place again has new stamps: the old buffer would refuse every byte of it.
        takes_over = serving is None or (serving.name, serving.place) == (holding.name, holding.place)
        if replica is None:
            replica = Replica(manifest, Bitmap(manifest.chunks, full=True), holding.role, self._loop)
            if buffer is not None:
                replica.address = self._engine.register(buffer)
            self.replicas[digest] = replica
        elif buffer is not None and takes_over and replica.address:
            self._to_do.append(partial(self._engine.replace, replica.address, buffer))
        elif buffer is not None:
            self._to_do.append(buffer.close)
        if not replica.have.full:  # another get of the same object is still at work on its own copy
            replica.have = Bitmap(manifest.chunks, full=True)
            replica.landed(range(manifest.chunks))
        if takes_over:
            self.whole_bytes += 0 if serving else holding.record.size
            self._served[digest] = holding
        if holding.role == "gold":
            replica.role = "gold"

    def vacate(self, digest: str) -> None:
        """The place from which that content is served is gone: the next that is to be served takes over."""
        self._leave(digest)

    def serve_partial(self, replica: Replica, buffer: Buffer) -> None:
        """Serve what a get has verified of something that is not served yet."""
        replica.address = self._engine.register(buffer)
        self.replicas[replica.manifest.digest] = replica

    def drop_partial(self, replica: Replica) -> bool:
        """A get ended before it was whole. Returns whether its replica was served."""
        digest = replica.manifest.digest
        if self.replicas.get(digest) is not replica or digest in self._served:
            return False
        self.unserve(digest)
        return True

    def unserve(self, digest: str, reason: str = "") -> None:
        """Serve that content no more; ``reason`` is told to those who get it just now."""
        self._leave(digest)
        replica = self.replicas.pop(digest, None)
        if replica is None:
            return  # the node ends
        if replica.address:
            self._to_do.append(partial(self._engine.unregister, replica.address))
        replica.withdrawn(reason)

    def _leave(self, digest: str) -> None:
        left = self._served.pop(digest, None)
        self.whole_bytes -= left.record.size if left is not None else 0

    async def catch_up(self) -> None:
        """Have the engine do what it still has to, and wait for that."""
        to_do, self._to_do = self._to_do, []
        if to_do:
            await asyncio.to_thread(_do_all, to_do)


def _do_all(to_do: Sequence[Callable[[], object]]) -> None:
    """Do each of these, in this order. What the engine does not know any more it need not do: it is being closed."""
    for work in to_do:
        with contextlib.suppress(AddressError):
            work()
