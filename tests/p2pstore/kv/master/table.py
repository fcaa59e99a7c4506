"""A master that is a table of answers, and a server of it in a thread, for whoever asks over HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from engine.net import addresses, sockets
from engine.rpc.codes import Code
from engine.rpc.messages import Disk, LocalDisk, Memory, Nof, Replica, Status
from p2pstore.kv.master.facts import CallerFacts, KeyFacts, PoolFacts, ReplicaFact, SegmentFact
from p2pstore.kv.master.forms import KeyShown
from p2pstore.kv.master.http import AdminServer
from p2pstore.kv.master.metrics import Readings
from p2pstore.kv.pool.drain import JobInfo, JobStatus
from p2pstore.kv.pool.entries import TenantUse
from p2pstore.kv.pool.segments import SegmentInfo
from p2pstore.kv.pool.walks import Steps

KEY = "llama-3@tp_rank:0@" + "ab" * 16
STRANGE = "a b+c,d\n\u4e16"
JOB = (7).to_bytes(8, "little") + (9).to_bytes(8, "little")
ID = (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
PLACE = Memory(4096, 0x7F0000000000, "tcp", "10.0.0.2:12001")


class Table:
    """A master with two keys and one segment."""

    def __init__(self) -> None:
        self.is_ready = True
        self.held: dict[tuple[str, str], list[Replica]] = {
            ("default", KEY): [Replica(1, PLACE, Status.COMPLETE)],
            ("default", STRANGE): [
                Replica(2, PLACE, Status.COMPLETE),
                Replica(3, Nof(4096, 1, "nvmeof", "n"), Status.COMPLETE),
                Replica(4, Disk("/mnt/x", 4096), Status.COMPLETE),
                Replica(5, LocalDisk(ID, 4096, "10.0.0.2:1"), Status.COMPLETE),
            ],
            ("red", "only-red"): [Replica(6, PLACE, Status.PROCESSING)],
        }
        self.uses: tuple[Sequence[TenantUse], int] | None = None
        self.drained: list[tuple[list[str], list[str], int]] = []
        self.segment_name = "host:1"
        self.removed: list[tuple[str, bool]] = []

    def ready(self) -> bool:
        return self.is_ready

    def status(self) -> dict[str, Any]:
        return {"version": "1", "address": "10.0.0.1:50051", "up": 3.0}

    def readings(self) -> Readings:
        numbers = {"key_count": 3, "total_get_nums": 4, "valid_get_nums": 3, "total_capacity_bytes": 4 << 20}
        return Readings(numbers, {"Ping": (5, 0, 0, 0, 0)}, unknown={"FlyToTheMoon": 1})

    def names(self) -> Iterator[tuple[str, Sequence[str]]]:
        for tenant in dict.fromkeys(owner for owner, _ in self.held):
            yield tenant, [key for owner, key in self.held if owner == tenant]

    def shown(self, tenant: str, key: str) -> KeyShown | None:
        found = self.held[tenant, key]
        return KeyShown(key, tenant, 4096, len(found), found[0].status == Status.COMPLETE)

    def replicas(self, key: str, tenant: str) -> Sequence[Replica] | Code:
        if not key:
            return Code.BAD_PARAMS
        return self.held.get((tenant, key), Code.NOT_FOUND)

    def segments(self) -> Sequence[SegmentInfo]:
        one = SegmentInfo(self.segment_name, ID, ID, 0x1000, 1 << 30, 1 << 29, "10.0.0.2:1", "tcp", "OK", 0.5)
        return [one, one._replace(used=0), one._replace(name="gone:1", status="ABSENT", size=0)]

    def remove(self, key: str, tenant: str, *, force: bool) -> Code:
        if (tenant, key) not in self.held:
            return Code.NOT_FOUND
        if not force:
            return Code.LEASED
        self.removed.append((key, force))
        return Code.OK

    def remove_all(self, tenant: str, *, force: bool) -> Steps[int]:
        self.removed.append((f"all of {tenant or 'everybody'}", force))
        yield
        return 3

    def tenant_uses(self) -> Iterator[TenantUse] | None:
        return None if self.uses is None else iter(self.uses[0])

    def tenant_use(self, tenant: str) -> TenantUse | None:
        return None if self.uses is None else next((each for each in self.uses[0] if each.name == tenant), None)

    def capacity(self) -> int:
        return 0 if self.uses is None else self.uses[1]

    def set_quota(self, tenant: str, size: int) -> Code:
        if self.uses is None:
            return Code.BAD_MODE
        uses, capacity = self.uses
        known = {each.name: each for each in uses}
        if tenant not in known:
            return Code.NOT_FOUND
        known[tenant] = known[tenant]._replace(quota=size or None)
        self.uses = list(known.values()), capacity
        return Code.OK

    def drain(self, segments: Sequence[str], targets: Sequence[str], concurrency: int) -> bytes | Code:
        self.drained.append((list(segments), list(targets), concurrency))
        return JOB if "host:1" in segments else Code.NO_SEGMENT

    def drain_job(self, job: bytes) -> JobInfo | Code:
        if job != JOB:
            return Code.NO_JOB
        return JobInfo(JOB, JobStatus.RUNNING, 1000, 2000, ["host:1"], 1, 2, 3, 4, 5, "Drain job running")

    def cancel_drain(self, job: bytes) -> Code:
        return Code.BAD_STATUS if job == JOB else Code.NO_JOB

    def key_facts(self, key: str, tenant: str) -> KeyFacts:
        replicas = [ReplicaFact("10.0.0.2:12001", "memory", 4096, True, 0.5)] if (tenant, key) in self.held else []
        return KeyFacts(key, tenant, replicas, leased_for=2.0 if replicas else 0.0)

    def caller_facts(self) -> Sequence[CallerFacts]:
        return [CallerFacts("10.0.0.3:4", "0.3.13", calls=3, failures={Code.NO_SPACE: 2}, unknown={"X": 1})]

    def pool_facts(self) -> PoolFacts:
        return PoolFacts("10.0.0.1:50051", 3.0, (SegmentFact("host:1", "10.0.0.2:1", "", 1 << 30, 0, 0.5),))


class Served:
    """The admin server of a table, in a thread of its own, from the start to ``close``."""

    def __init__(self, table: Table) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = AdminServer(table)
        listener = sockets.listen("127.0.0.1", 0)
        self.address = addresses.join(*listener.getsockname())
        asyncio.run_coroutine_threadsafe(self._server.start(listener), self._loop).result(60)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()
