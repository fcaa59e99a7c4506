"""The fake against what is known of real devices: what it lets pass, they would; and what they check, it does."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass

import pytest

from engine.errors import LockedMemoryLimit, VerbsFailed
from engine.memory.region import Region
from engine.transports.rdma.verbs.fake_verbs import (
    FLUSHED,
    LOCAL_PROTECTION,
    NO_ANSWER,
    REMOTE_ACCESS,
    Fabric,
    FakeCompletionQueue,
    FakeContext,
    FakeDevice,
    FakeQueuePair,
    FakeVerbs,
    mapped_gid,
)
from engine.transports.rdma.verbs.interface import Access, Completion, Limits, QueuePairPath, WorkOpcode, WorkRequest

SIZE = 8192
DATA = bytes(range(256)) * (SIZE // 256)
READ, WRITE = WorkOpcode.READ, WorkOpcode.WRITE


@dataclass
class End:
    """One side of a connection, with memory of its own."""

    context: FakeContext
    queue: FakeCompletionQueue
    pair: FakeQueuePair
    memory: bytearray
    region: Region
    key: int
    remote: int


@pytest.fixture
def fabric() -> Fabric:
    return Fabric([FakeDevice("a0", "10.1.0.1"), FakeDevice("b0", "10.1.0.2")])


def end(
    fabric: Fabric, device: str, *, access: Access = Access.LOCAL_WRITE, depth: int = 4, remote: int | None = None
) -> End:
    context = FakeVerbs(fabric).open(device)
    queue = context.completion_queue(2 * depth)
    memory = bytearray(SIZE)
    region = Region.of(memory)
    registration = context.register(region.address, SIZE, access, remote)
    pair = context.queue_pair(queue, depth)
    return End(context, queue, pair, memory, region, registration.rkey, registration.remote)


def path(to: End, address: str = "10.1.0.2") -> QueuePairPath:
    return QueuePairPath(port=1, gid_index=1, gid=mapped_gid(address), lid=0, number=to.pair.number, mtu=4096)


def connected(fabric: Fabric, access: Access = Access.REMOTE_READ | Access.REMOTE_WRITE) -> tuple[End, End]:
    """The reader, and the owner whose memory holds ``DATA`` and may be used as ``access`` says."""
    ours, theirs = end(fabric, "a0"), end(fabric, "b0", access=access)
    theirs.memory[:] = DATA
    ours.pair.connect(path(theirs), Access.LOCAL_WRITE)
    theirs.pair.connect(path(ours, "10.1.0.1"), access)
    return ours, theirs


def ask(
    ours: End, theirs: End, opcode: WorkOpcode = READ, *, at: int = 0, length: int = 100, number: int = 1
) -> WorkRequest:
    return WorkRequest(number, opcode, ours.region.address + at, ours.key, length, theirs.remote + at, theirs.key)


def result(ours: End) -> list[int]:
    return [each.status for each in ours.queue.poll(100)]


def test_a_read_and_a_write_copy_bytes(fabric: Fabric) -> None:
    ours, theirs = connected(fabric)
    assert ours.pair.post([ask(ours, theirs, at=50, number=7)]) == 1
    assert ours.queue.poll(9) == [Completion(7, 0)]
    assert ours.memory[50:150] == DATA[50:150]
    assert not any(ours.memory[:50])
    ours.memory[:100] = b"w" * 100
    ours.pair.post([ask(ours, theirs, WRITE)])
    assert result(ours) == [0]
    assert theirs.memory[:101] == b"w" * 100 + DATA[100:101]
    assert fabric.moved == {("a0", "b0"): 200}


def test_a_range_beyond_the_region_is_refused_by_either_side(fabric: Fabric) -> None:
    ours, theirs = connected(fabric)
    beyond = ask(ours, theirs, at=SIZE - 99)
    ours.pair.post([beyond])
    assert result(ours) == [LOCAL_PROTECTION]
    ours, theirs = connected(fabric)
    ours.pair.post([beyond._replace(local=ours.region.address, lkey=ours.key)])
    assert result(ours) == [REMOTE_ACCESS]
    assert not any(ours.memory)


@pytest.mark.parametrize(
    ("opcode", "enough", "other"),
    [(READ, Access.REMOTE_READ, Access.REMOTE_WRITE), (WRITE, Access.REMOTE_WRITE, Access.REMOTE_READ)],
)
def test_what_may_be_done_is_what_the_owner_allows(
    fabric: Fabric, opcode: WorkOpcode, enough: Access, other: Access
) -> None:
    ours, theirs = connected(fabric, enough)
    ours.pair.post([ask(ours, theirs, opcode)])
    assert result(ours) == [0]
    ours, theirs = connected(fabric, other)
    ours.pair.post([ask(ours, theirs, opcode)])
    assert result(ours) == [REMOTE_ACCESS]


def test_memory_that_was_deregistered_is_refused(fabric: Fabric) -> None:
    ours, theirs = connected(fabric)
    fabric.regions[theirs.key].close()
    ours.pair.post([ask(ours, theirs)])
    assert result(ours) == [REMOTE_ACCESS]


def test_after_an_error_the_queue_pair_flushes_all_that_follows(fabric: Fabric) -> None:
    ours, theirs = connected(fabric)
    wrong = ask(ours, theirs)._replace(rkey=1)
    assert ours.pair.post([ask(ours, theirs), wrong, ask(ours, theirs)]) == 3
    assert result(ours) == [0, REMOTE_ACCESS, FLUSHED]
    ours.pair.post([ask(ours, theirs)])
    assert result(ours) == [FLUSHED]


def test_peers_that_are_gone_or_down_do_not_answer(fabric: Fabric) -> None:
    ours, theirs = connected(fabric)
    fabric.down.add("b0")
    ours.pair.post([ask(ours, theirs)])
    assert result(ours) == [NO_ANSWER]
    fabric.down.clear()
    ours, theirs = connected(fabric)
    theirs.pair.close()
    ours.pair.post([ask(ours, theirs)])
    assert result(ours) == [NO_ANSWER]


def test_both_ends_must_be_connected_to_each_other(fabric: Fabric) -> None:
    ours, theirs = end(fabric, "a0"), end(fabric, "b0", access=Access.REMOTE_READ)
    with pytest.raises(VerbsFailed, match="post_send"):
        ours.pair.post([ask(ours, theirs)])
    ours.pair.connect(path(theirs), Access.LOCAL_WRITE)
    ours.pair.post([ask(ours, theirs)])
    assert result(ours) == [NO_ANSWER]
    with pytest.raises(VerbsFailed, match="unreachable"):
        theirs.pair.connect(path(ours, "10.9.9.9"), Access.REMOTE_READ)


def test_a_queue_pair_takes_no_more_than_its_depth(fabric: Fabric) -> None:
    ours, theirs = connected(fabric)
    fabric.held = True
    assert ours.pair.post([ask(ours, theirs)] * 3) == 3
    assert ours.pair.post([ask(ours, theirs)] * 3) == 1
    assert ours.pair.post([ask(ours, theirs)]) == 0
    assert result(ours) == []
    fabric.release()
    assert result(ours) == [0] * 4


def test_completions_that_nobody_takes_overrun(fabric: Fabric) -> None:
    ours, theirs = connected(fabric)
    for _ in range(8):
        ours.pair.post([ask(ours, theirs)])
    with pytest.raises(OverflowError):
        ours.pair.post([ask(ours, theirs)])


def test_a_completion_makes_the_descriptor_readable_once_it_is_armed(fabric: Fabric) -> None:
    ours, theirs = connected(fabric)

    def readable() -> bool:
        return bool(select.select([ours.queue.fd], [], [], 0)[0])

    ours.pair.post([ask(ours, theirs)])
    assert not readable()
    ours.queue.arm()
    assert not readable()  # for what was there before, it must be looked
    ours.pair.post([ask(ours, theirs)] * 2)
    assert readable()
    ours.queue.acknowledge()
    assert not readable()
    ours.queue.acknowledge()
    assert len(ours.queue.poll(2)) == 2
    assert len(ours.queue.poll(2)) == 1


def test_peers_name_memory_by_the_address_it_was_registered_under(fabric: Fabric) -> None:
    ours = end(fabric, "a0")
    theirs = end(fabric, "b0", access=Access.REMOTE_READ, remote=1 << 40)
    theirs.memory[:] = DATA
    ours.pair.connect(path(theirs), Access.LOCAL_WRITE)
    theirs.pair.connect(path(ours, "10.1.0.1"), Access.REMOTE_READ)
    assert theirs.remote == 1 << 40
    ours.pair.post([ask(ours, theirs, at=64)])
    assert result(ours) == [0]
    assert ours.memory[64:164] == DATA[64:164]


def test_statuses_can_be_ordered(fabric: Fabric) -> None:
    ours, theirs = connected(fabric)
    fabric.statuses.extend([0, 19])
    ours.pair.post([ask(ours, theirs)] * 2)
    assert result(ours) == [0, 19]


def test_devices_have_limits(fabric: Fabric) -> None:
    fabric.devices["a0"].limits = Limits(1, 1, 256, 16, 16, 1 << 40)
    fabric.devices["a0"].pinnable = 100
    context = FakeVerbs(fabric).open("a0")
    with pytest.raises(LockedMemoryLimit):
        context.register(1 << 20, 101, Access.LOCAL_WRITE)
    queue = context.completion_queue(4)
    context.queue_pair(queue, 4)
    with pytest.raises(VerbsFailed, match="create_qp"):
        context.queue_pair(queue, 4)
    with pytest.raises(VerbsFailed, match="query_port"):
        context.port(2)


def test_a_view_has_the_devices_that_it_names(fabric: Fabric) -> None:
    assert FakeVerbs(fabric).devices() == ["a0", "b0"]
    view = FakeVerbs(fabric, ["b0"])
    assert view.devices() == ["b0"]
    with pytest.raises(VerbsFailed):
        view.open("a0")
    context = view.open("b0")
    (gid,) = context.gids(1)
    assert gid.raw == mapped_gid("10.1.0.2")
    assert context.port(1).mtu == 4096


def test_what_was_not_closed_is_counted(fabric: Fabric) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    ours, theirs = connected(fabric)
    assert fabric.left == 8
    for _ in range(2):
        for each in (ours, theirs):
            each.pair.close()
            each.queue.close()
            if each.key in fabric.regions:
                fabric.regions[each.key].close()
            each.context.close()
    assert fabric.left == 0
    assert len(os.listdir("/proc/self/fd")) <= descriptors
