"""Both implementations of the verbs do what their interface says, on a real kernel's devices."""

from __future__ import annotations

import mmap
import select
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config.settings import EngineSettings
from engine.errors import TransportUnavailable, VerbsFailed
from engine.memory.region import Region
from engine.transports.rdma.nics import inspect
from engine.transports.rdma.pinned import MappedFile
from engine.transports.rdma.verbs.interface import (
    Access,
    Completion,
    CompletionQueue,
    Context,
    GidType,
    LinkLayer,
    QueuePair,
    QueuePairPath,
    Verbs,
    WorkOpcode,
    WorkRequest,
    meaning,
)
from engine.transports.rdma.verbs.load import load_verbs

SIZE = 1 << 20


class Side:
    """One end: a context, a queue, a queue pair."""

    def __init__(self, verbs: Verbs, device: str) -> None:
        self.context: Context = verbs.open(device)
        self.gid = next(g for g in self.context.gids(1) if g.type is GidType.ROCE_V2 and g.raw[10:12] == b"\xff\xff")
        self.queue: CompletionQueue = self.context.completion_queue(32)
        self.pair: QueuePair = self.context.queue_pair(self.queue, 8)

    def connect(self, other: Side, access: Access) -> None:
        self.pair.connect(QueuePairPath(1, self.gid.index, other.gid.raw, 0, other.pair.number, 4096), access)

    def run(self, *requests: WorkRequest) -> list[Completion]:
        """The completions of requests, waited for by the descriptor."""
        found: list[Completion] = []
        self.queue.arm()
        assert self.pair.post(requests) == len(requests)
        while len(found) < len(requests):
            some = self.queue.poll(16)
            found += some
            if not some:
                assert select.select([self.queue.fd], [], [], 30)[0], found
                self.queue.acknowledge()
                self.queue.arm()
        return found

    def close(self) -> None:
        self.pair.close()
        self.queue.close()
        self.context.close()


@pytest.fixture(params=["ctypes", "pyverbs"])
def verbs(request: pytest.FixtureRequest) -> Verbs:
    try:
        return load_verbs(request.param)
    except TransportUnavailable as error:
        pytest.skip(f"NOT TESTED WITH {request.param}: {error}")


@pytest.fixture
def ends(verbs: Verbs) -> Iterator[tuple[Side, Side]]:
    one, other = Side(verbs, "rxe1"), Side(verbs, "rxe0")
    one.connect(other, Access.LOCAL_WRITE)
    other.connect(one, Access.LOCAL_WRITE | Access.REMOTE_READ | Access.REMOTE_WRITE)
    yield one, other
    one.close()
    other.close()


def test_devices_are_found_with_all_that_is_wanted_of_them(verbs: Verbs) -> None:
    assert verbs.devices() == ["rxe0", "rxe1"]
    reports = inspect(verbs, EngineSettings())
    assert [report.name for report in reports] == ["rxe0", "rxe1"]
    for report in reports:
        assert report.usable, report.reason
        assert report.info is not None
        assert report.gid is not None
        assert (report.info.link, report.info.mtu) == (LinkLayer.ETHERNET, 4096)
        assert report.gid.type is GidType.ROCE_V2
        assert report.gid.raw[10:12] == b"\xff\xff"
        assert report.prefix == 96 + 24
    (_, other) = inspect(verbs, EngineSettings(gid_index=77))
    assert "index 77" in other.reason
    with pytest.raises(VerbsFailed):
        verbs.open("mlx5_99")


def test_read_and_write(ends: tuple[Side, Side]) -> None:
    one, other = ends
    ours, theirs = mmap.mmap(-1, SIZE), mmap.mmap(-1, SIZE)
    theirs[:] = bytes(range(256)) * (SIZE // 256)
    here, there = Region.of(ours), Region.of(theirs)
    local = one.context.register(here.address, SIZE, Access.LOCAL_WRITE)
    remote = other.context.register(there.address, SIZE, Access.LOCAL_WRITE | Access.REMOTE_READ | Access.REMOTE_WRITE)
    half = SIZE // 2
    reads = [
        WorkRequest(
            n, WorkOpcode.READ, here.address + n * half, local.lkey, half, remote.remote + n * half, remote.rkey
        )
        for n in (0, 1)
    ]
    assert sorted(one.run(*reads)) == [Completion(0, 0), Completion(1, 0)]
    assert ours[:] == theirs[:]
    ours[:5] = b"12345"
    assert one.run(WorkRequest(7, WorkOpcode.WRITE, here.address, local.lkey, 5, remote.remote + 9, remote.rkey)) == [
        Completion(7, 0)
    ]
    assert theirs[9:14] == b"12345"
    for region in (local, remote, local):
        region.close()
    here.close()
    there.close()


def test_a_key_that_is_wrong_or_gone_is_refused(ends: tuple[Side, Side]) -> None:
    one, other = ends
    memory = Region.of(mmap.mmap(-1, SIZE))
    local = one.context.register(memory.address, SIZE, Access.LOCAL_WRITE)
    remote = other.context.register(memory.address, SIZE, Access.REMOTE_READ)
    remote.close()
    (found,) = one.run(WorkRequest(1, WorkOpcode.READ, memory.address, local.lkey, 9, memory.address, remote.rkey))
    assert meaning(found.status).refused
    # The queue pair is broken now: whatever follows falls with it.
    (found,) = one.run(WorkRequest(2, WorkOpcode.READ, memory.address, local.lkey, 9, memory.address, remote.rkey))
    assert meaning(found.status).flush
    local.close()


def test_files_on_disk_and_in_memory_are_registered_in_place(ends: tuple[Side, Side], tmp_path: Path) -> None:
    one, other = ends
    data = bytes(range(256)) * 64
    into = mmap.mmap(-1, len(data))
    here = Region.of(into)
    local = one.context.register(here.address, len(data), Access.LOCAL_WRITE)
    for directory in (tmp_path, Path("/dev/shm")):
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x" * 1000 + data)
            file.flush()
            mapped = MappedFile(file.fileno(), 1000, len(data))
            region = other.context.register(mapped.address, len(data), Access.REMOTE_READ)
            (done,) = one.run(
                WorkRequest(1, WorkOpcode.READ, here.address, local.lkey, len(data), region.remote, region.rkey)
            )
            assert not done.status, meaning(done.status)
            assert into[:] == data
            region.close()
            mapped.close()
        into[:] = bytes(len(data))
    local.close()


def test_memory_is_known_under_another_address_where_the_verbs_can(ends: tuple[Side, Side], verbs: Verbs) -> None:
    one, other = ends
    ours, theirs = mmap.mmap(-1, 8192), mmap.mmap(-1, 8192)
    theirs[:5] = b"12345"
    here, there = Region.of(ours), Region.of(theirs)
    local = one.context.register(here.address, 8192, Access.LOCAL_WRITE)
    if not verbs.remaps:
        with pytest.raises(ValueError, match="another address"):
            other.context.register(there.address, 8192, Access.REMOTE_READ, 0x7000)
    else:
        remote = other.context.register(there.address, 8192, Access.REMOTE_READ, 0x12_3456_7000)
        (done,) = one.run(WorkRequest(1, WorkOpcode.READ, here.address, local.lkey, 5, 0x12_3456_7000, remote.rkey))
        assert not done.status
        assert ours[:5] == b"12345"
        remote.close()
    local.close()
