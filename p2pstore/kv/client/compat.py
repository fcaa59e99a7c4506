"""Upstream's ``mooncake.store`` over this client: its names, its arguments, and its numbers in place of exceptions.

``MooncakeDistributedStore`` takes memory by address and answers with codes, as programs for upstream's client expect.
What went wrong last is in ``last_error``, in words, and in the log. Where upstream's client says 0 of what it did not
do, this one tells the code for why.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from engine.net.addresses import given_place
from engine.rpc.codes import Code
from engine.rpc.messages import Replica, Replicas
from p2pstore.errors import PortTaken, UsageError
from p2pstore.kv.client.buffer_pool import BufferLease, BufferPool, MooncakeHostMemAllocator
from p2pstore.kv.client.client import Client
from p2pstore.kv.client.compat_base import log
from p2pstore.kv.client.compat_left_out import LEFT_OUT
from p2pstore.kv.client.compat_parallel import CompatParallel
from p2pstore.kv.client.compat_types import (
    BufferHandle,
    Descriptor,
    DiskDescriptor,
    MemoryDescriptor,
    ObjectDataType,
    QueryTaskResponse,
    ReplicaDescriptor,
    ReplicaStatus,
    ReplicateConfig,
    SoftPinAction,
    TaskStatus,
    TaskType,
    identity,
    pair,
)
from p2pstore.kv.client.layouts import ParallelAxis, ReadTarget, TensorParallelism
from p2pstore.kv.client.options import SETUP_SECONDS, StoreOptions
from p2pstore.kv.client.own_name import PORTS
from p2pstore.kv.client.sessions import GetSessions, PutSessions
from p2pstore.kv.client.setup_keys import Setup, understood

__all__ = [
    "BufferHandle",
    "BufferLease",
    "BufferPool",
    "Descriptor",
    "DiskDescriptor",
    "MemoryDescriptor",
    "MooncakeDistributedStore",
    "MooncakeHostMemAllocator",
    "ObjectDataType",
    "ParallelAxis",
    "QueryTaskResponse",
    "ReadTarget",
    "ReplicaDescriptor",
    "ReplicaStatus",
    "ReplicateConfig",
    "SoftPinAction",
    "TaskStatus",
    "TaskType",
    "TensorParallelism",
]

RegisteredBufferPool, RegisteredBufferLease = BufferPool, BufferLease

# The values of its enumerations are names of upstream's module, too; of two of one name the later one.
for _kind in (ObjectDataType, ReplicaStatus, TaskType, TaskStatus):
    globals().update(_kind.__members__)

OK, CLOSED, UNREACHABLE = 0, 1, 2
"""What ``health_check`` says."""


class MooncakeDistributedStore(CompatParallel):
    """A client as upstream's class of this name is one. It is of no use before ``setup``, and may be set up again."""

    # Life

    def setup(
        self,
        local_hostname: str | Mapping[str, Any] = "",
        metadata_server: str = "",
        global_segment_size: int | str = 16 << 20,
        local_buffer_size: int | str = 16 << 20,
        protocol: str = "tcp",
        rdma_devices: str = "",
        master_server_addr: str = "",
        engine: object = None,
        enable_ssd_offload: bool = False,  # noqa: FBT001 - upstream's
        ssd_offload_path: str = "",
        tenant_id: str = "",
        enable_client_http_server: bool = False,  # noqa: FBT001 - upstream's
        client_http_port: int = 9300,
        *,
        config: Mapping[str, Any] | None = None,
    ) -> int:
        """Join a pool. 0, or a code: ``last_error`` has the reason in words."""
        if config is None and isinstance(local_hostname, Mapping):
            config = local_hostname
        if config is None:
            config = {
                "local_hostname": local_hostname,
                "metadata_server": metadata_server,
                "global_segment_size": global_segment_size,
                "local_buffer_size": local_buffer_size,
                "protocol": protocol,
                "rdma_devices": rdma_devices,
                "master_server_addr": master_server_addr,
                "engine": engine,
                "enable_ssd_offload": enable_ssd_offload,
                "ssd_offload_path": ssd_offload_path,
                "tenant_id": tenant_id,
                "enable_client_http_server": enable_client_http_server,
                "client_http_port": client_http_port,
            }
        self.close()
        with self._called() as failed:
            said = understood(config)
            for name in said.ignored:
                log.warning("setup: %s does nothing in this client", name)
            self._client = _joined(said)
            self._local_buffer = said.local_buffer_size
            self._gets = GetSessions(self._client)
            self._puts = PutSessions(self._client)
        return failed.code

    def close(self) -> int:
        """Leave the pool."""
        client, self._client = self._client, None
        self._gets = self._puts = None
        if client is not None:
            client.close()
        return 0

    def __getattr__(self, name: str) -> NoReturn:
        why = LEFT_OUT.get(name)
        detail = f": {why}" if why else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{detail}")

    def __del__(self) -> None:
        # As upstream's: memory leaves the pool with the object that gave it. Nobody waits for that here.
        client = getattr(self, "_client", None)
        if client is not None and not sys.is_finalizing():  # then it ends with the process, and modules are gone
            client.closing.close(0.0, wait=False)

    def health_check(self) -> int:
        """0 where the master answers, 1 where this client is closed, 2 where the master cannot be reached."""
        if self._client is None or self._client.closing.begun:
            return CLOSED
        return UNREACHABLE if self._client.master.why_not else OK

    @property
    def local_buffer_size(self) -> int:
        """What ``setup`` was told: the largest value that ``put`` takes; 0 before that."""
        return self._local_buffer

    def get_hostname(self) -> str:
        """The name of this client's memory among segments."""
        return self._client.name if self._client is not None else ""

    # Keys

    def is_exist(self, key: str) -> int:
        """1 where there is a value, 0 where there is none, or a code."""
        return self.batch_is_exist([key])[0]

    def batch_is_exist(self, keys: Sequence[str]) -> list[int]:
        """The same for many keys."""
        return self._coded(keys, lambda: [int(each) for each in self._open().master.exist(list(keys))])

    def get_size(self, key: str) -> int:
        """Bytes of a value, or a code."""
        return self._coded([key], lambda: [_size(each) for each in self._open().master.replicas([key])])[0]

    def get_replica_desc(self, key: str) -> list[ReplicaDescriptor]:
        """Where a value lies; nothing where there is none."""
        return self.batch_get_replica_desc([key]).get(key, [])

    def batch_get_replica_desc(self, keys: Sequence[str]) -> dict[str, list[ReplicaDescriptor]]:
        """Where values lie, of those that there are."""
        found: dict[str, list[ReplicaDescriptor]] = {}
        with self._called():
            for key, answer in zip(keys, self._open().master.replicas(list(keys)), strict=True):
                if isinstance(answer, Replicas):
                    found[key] = [ReplicaDescriptor(each) for each in answer.replicas]
        return found

    def remove(self, key: str, force: bool = False) -> int:  # noqa: FBT001 - upstream's
        """Remove a value."""
        return self._coded([key], lambda: [int(self._open().master.remove(key, force=force))])[0]

    def batch_remove(self, keys: Sequence[str], force: bool = False) -> list[int]:  # noqa: FBT001 - upstream's
        """Remove values; a code for each."""
        return self._coded(keys, lambda: [int(each) for each in self._open().master.remove_many(keys, force=force)])

    def remove_by_regex(self, regex_pattern: str, force: bool = False) -> int:  # noqa: FBT001 - upstream's
        """Remove what matches; how many those were, or a code."""
        return self._coded([""], lambda: [int(self._open().master.remove_by_regex(regex_pattern, force=force))])[0]

    def remove_all(self, force: bool = False) -> int:  # noqa: FBT001 - upstream's
        """Remove all; how many those were, or a code."""
        return self._coded([""], lambda: [self._open().master.remove_all(force=force)])[0]

    def batch_replica_clear(self, keys: Sequence[str], segment_name: str = "") -> list[str]:
        """Drop replicas, of one segment where it is named; the keys for which that was done."""
        answer: Any = Code.RPC_FAILED
        with self._called():
            answer = self._open().master.call("BatchReplicaClear", list(keys), self._open().id, segment_name)
        return [] if isinstance(answer, Code) else list(answer)

    # Placement

    def create_copy_task(self, key: str, targets: Sequence[str]) -> tuple[tuple[int, int], int]:
        """Have a value copied to segments: the task's id, and a code."""
        return self._task("CreateCopyTask", key, list(targets))

    def create_move_task(self, key: str, source: str, target: str) -> tuple[tuple[int, int], int]:
        """Have a replica moved: the task's id, and a code."""
        return self._task("CreateMoveTask", key, source, target)

    def query_task(self, task_id: tuple[int, int]) -> tuple[QueryTaskResponse | None, int]:
        """How a task stands, and a code."""
        answer: Any = Code.RPC_FAILED
        with self._called() as failed:
            answer = self._open().master.call("QueryTask", identity(task_id))
        if failed.code or isinstance(answer, Code):
            return None, failed.code or int(answer)
        return QueryTaskResponse(answer), 0

    def allocate_and_mount_segment(self, size: int, protocol: str = "tcp", location: str = "") -> dict[str, Any]:  # noqa: ARG002 - upstream's
        """Give more memory to the pool: ``{"ret": code, "segment_ids": [...], "allocated_size": bytes}``."""
        ids: list[str] = []
        with self._called() as failed:
            ids.append(self._open().mount(size).hex())
        return {"ret": failed.code, "segment_ids": ids, "allocated_size": size if ids else 0}

    def mount_segment(
        self,
        path: str,
        size: int,
        offset: int = 0,
        protocol: str = "tcp",  # noqa: ARG002 - upstream's
        location: str = "",  # noqa: ARG002 - upstream's
    ) -> dict[str, Any]:
        """Give part of a file, from a page on, to the pool. Nobody may cut it short: this process would end."""
        ids: list[str] = []
        with self._called() as failed:
            ids.append(self._open().mount_file(path, size, offset).hex())
        return {"ret": failed.code, "segment_ids": ids}

    def unmount_segment(self, segment_ids: Sequence[str], grace_period_seconds: int = 0) -> int:
        """Take memory back, after so many seconds in which it can still be read."""
        with self._called() as failed:
            for each in segment_ids:
                self._open().unmount(_segment(each), float(grace_period_seconds))
        return failed.code

    unmount_and_free_segment = unmount_segment

    def unmount_local_disk_segment(self, grace_period_seconds: int = 0) -> int:  # noqa: ARG002 - upstream's
        """Offer the disk to the pool no more; 0, too, where there is none."""
        with self._called() as failed:
            disk = self._open().disk
            if disk is not None:
                disk.leave()
        return failed.code

    def get_offload_rpc_read_count(self) -> int:
        """Values that were read from the disks of others."""
        return 0 if self._client is None else self._client.reader.disks.fetched

    # Inside

    def _take_over(self, other: MooncakeDistributedStore) -> None:
        """Have what ``other`` has joined, which nobody has used yet, and its words; it is left as after ``close``."""
        self._client, other._client = other._client, None
        self._gets, self._puts, other._gets, other._puts = other._gets, other._puts, None, None
        self._local_buffer, self.last_error = other._local_buffer, other.last_error

    def _task(self, method: str, key: str, *more: object) -> tuple[tuple[int, int], int]:
        answer: Any = Code.RPC_FAILED
        with self._called() as failed:
            client = self._open()
            answer = client.master.call(method, key, client.options.tenant, *more)
        if failed.code or isinstance(answer, Code):
            return (0, 0), failed.code or int(answer)
        return pair(answer), 0


def _joined(said: Setup) -> Client:
    try:
        return _client(said)
    except PortTaken as error:
        # To upstream's client the port is a name, and nobody listens there: several clients may be given one.
        log.warning("setup: %s; another port is taken", error)
        return _client(said._replace(local_hostname=given_place(said.local_hostname)[0]))


def _client(said: Setup) -> Client:
    options = StoreOptions(
        said.master_server_addr,
        hostname=said.local_hostname,
        segment_size=said.global_segment_size,
        metadata=said.metadata_server,
        protocol=said.protocol,
        devices=said.rdma_devices,
        tenant=said.tenant_id,
        disk=said.disk,
        disk_limit=said.disk_limit,
        setup_timeout=SETUP_SECONDS,
        ports=PORTS,
    )
    return Client(options, what="this MooncakeDistributedStore")


def _segment(text: str) -> bytes:
    """Raises ``UsageError``."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError(detail=f"{text!r} is no segment's id") from None


def _size(answer: Replicas | Code) -> int:
    if isinstance(answer, Code):
        return int(answer)
    return next((_bytes(each) for each in answer.replicas), int(Code.BAD_REPLICA))


def _bytes(replica: Replica) -> int:
    return int(replica.place.size)
