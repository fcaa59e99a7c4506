"""A forked child uses nothing of its parent's, keeps nothing of it open, and does it no harm."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import gc
import os
import pickle
import random
import select
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import forks
from engine.engine import Batch, Opcode, RegisteredMemory, Segment, TransferEngine, TransferRequest
from engine.errors import ForkedProcess, PeerUnreachable, UsageError
from engine.serving.segment_server import SegmentServer
from tests.forking import WAIT, in_child

ITEMS = 1 << 16
"""Numbers in the memory that is read: each says where it stands."""

RUN = 1 << 10
"""Numbers in one read."""


@pytest.fixture
def source() -> Iterator[TransferEngine]:
    with TransferEngine() as engine:
        engine.register_memory(array("Q", range(ITEMS)))
        yield engine


@pytest.fixture
def engine() -> Iterator[TransferEngine]:
    with TransferEngine() as made:
        yield made


@pytest.fixture
def segment(engine: TransferEngine, source: TransferEngine) -> Segment:
    """An open segment with an idle connection."""
    opened = engine.open_segment(source.segment_name)
    assert read(engine, opened, 0)
    return opened


def read(engine: TransferEngine, segment: Segment, at: int) -> bool:
    """Whether the numbers at ``at`` are right."""
    numbers = array("Q", bytes(8 * RUN))
    engine.read(numbers, segment, segment.buffers[0].address + 8 * at)
    return numbers == array("Q", range(at, at + RUN))


def test_a_child_knows_that_it_is_one_and_of_whom() -> None:
    origin = forks.Origin("this thing")
    origin.check()
    assert not origin.elsewhere
    with pytest.raises(ForkedProcess, match=rf"this thing belongs to process {os.getpid()}, .*'spawn'"):
        in_child(origin.check)
    assert in_child(lambda: origin.elsewhere)
    assert in_child(lambda: in_child(lambda: origin.elsewhere)), "nor in a child of the child"
    assert not in_child(lambda: forks.Origin("its own").elsewhere)


def test_what_is_held_stands_for_nothing_in_a_child() -> None:
    ours, theirs = socket.socketpair()
    with forks.hold(ours), theirs:

        def use() -> str:
            with pytest.raises(OSError, match="non-socket"):
                ours.send(b"stolen")
            assert not os.get_inheritable(ours.fileno())
            target = os.readlink(f"/proc/self/fd/{ours.fileno()}")
            ours.close()
            return target

        assert in_child(use) == "/dev/null"
        ours.send(b"whole")
        assert theirs.recv(100) == b"whole"


def test_a_number_that_has_become_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    with open(tmp_path / "ours", "wb") as ours:
        number = forks.hold(ours).fileno()
    theirs = os.open(tmp_path / "theirs", os.O_WRONLY | os.O_CREAT)
    if theirs != number:
        os.dup2(theirs, number)
        os.close(theirs)
    try:
        assert in_child(lambda: os.readlink(f"/proc/self/fd/{number}")) == str(tmp_path / "theirs")
    finally:
        os.close(number)


def without_a_free_descriptor(tmp_path: Path) -> None:
    """Fork where no file can be opened any more, and see what the child holds."""
    import resource

    held = [forks.hold(open(tmp_path / f"f{n}", "wb")) for n in range(3)]  # noqa: SIM115
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    extra = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))

        def left() -> list[str]:
            return [os.readlink(f"/proc/self/fd/{file.fileno()}") for file in held]

        read_end, write_end = os.pipe()
        extra += [read_end, write_end]
        with contextlib.suppress(OSError):
            while True:
                extra.append(os.open(os.devnull, os.O_RDONLY))
        for fd in extra[-2:]:  # for the pipe of ``in_child``
            os.close(fd)
        del extra[-2:]
        assert in_child(left) == ["/dev/null"] * 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in extra:
            os.close(fd)
        for file in held:
            file.close()


def test_a_child_without_a_free_descriptor_lets_go_too(tmp_path: Path) -> None:
    """In a process of its own: gRPC, which other tests here may have started, ends a process that forks so."""
    program = f"from pathlib import Path; from {__name__} import *; without_a_free_descriptor(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True, timeout=60)


def test_parent_and_children_get_right_bytes_or_an_error(engine: TransferEngine, segment: Segment) -> None:
    def many() -> tuple[int, int]:
        wrong = refused = 0
        chosen = random.Random(os.getpid())
        for _ in range(200):
            try:
                wrong += not read(engine, segment, chosen.randrange(ITEMS - RUN))
            except ForkedProcess:
                refused += 1
        return wrong, refused

    results: list[tuple[int, int]] = []
    parents = [threading.Thread(target=lambda: results.append(many())) for _ in range(2)]
    for thread in parents:
        thread.start()
    assert [in_child(many) for _ in range(3)] == [(0, 200)] * 3
    for thread in parents:
        thread.join(WAIT)
    assert results == [(0, 0)] * 2


@pytest.fixture
def batch(engine: TransferEngine, segment: Segment) -> Batch:
    made = engine.submit_transfer([TransferRequest(Opcode.READ, bytearray(8), segment, segment.buffers[0].address)])
    assert made.wait(WAIT)
    return made


CALLS: dict[str, Callable[[TransferEngine, Segment, Batch, RegisteredMemory], object]] = {
    "register_memory": lambda e, s, b, m: e.register_memory(bytearray(8)),
    "register_memory_batch": lambda e, s, b, m: e.register_memory_batch([bytearray(8)]),
    "unregister_memory": lambda e, s, b, m: e.unregister_memory(m),
    "unregister_memory_batch": lambda e, s, b, m: e.unregister_memory_batch([m]),
    "open_segment": lambda e, s, b, m: e.open_segment(s.name),
    "close_segment": lambda e, s, b, m: e.close_segment(s),
    "submit_transfer": lambda e, s, b, m: e.submit_transfer([]),
    "carry_out": lambda e, s, b, m: e.carry_out([]),
    "read": lambda e, s, b, m: e.read(bytearray(8), s, s.buffers[0].address),
    "read, in a bounded time": lambda e, s, b, m: e.read(bytearray(8), s, s.buffers[0].address, timeout=1.0),
    "write": lambda e, s, b, m: e.write(b"12345678", s, s.buffers[0].address),
    "notify": lambda e, s, b, m: e.notify(s, "a", "b"),
    "notifications": lambda e, s, b, m: e.notifications(),
    "probe": lambda e, s, b, m: e.probe(s),
    "failures": lambda e, s, b, m: e.failures,
    "segment.refresh": lambda e, s, b, m: s.refresh(),
    "batch.wait": lambda e, s, b, m: b.wait(),
    "batch.done": lambda e, s, b, m: b.done,
    "batch.transferred": lambda e, s, b, m: b.transferred,
    "batch.status": lambda e, s, b, m: b.status(0),
    "batch.statuses": lambda e, s, b, m: b.statuses(),
    "batch.cancel": lambda e, s, b, m: b.cancel(),
    "batch.raise_failed": lambda e, s, b, m: b.raise_failed(),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_says_spawn(name: str, engine: TransferEngine, segment: Segment, batch: Batch) -> None:
    memory = engine.register_memory(bytearray(8))
    with pytest.raises(ForkedProcess, match="'spawn'"):
        in_child(lambda: CALLS[name](engine, segment, batch, memory))
    assert engine.unregister_memory(memory)
    assert read(engine, segment, 0)


def test_every_public_call_of_an_engine_is_among_them() -> None:
    public = {name for name, value in vars(TransferEngine).items() if callable(value) and not name.startswith("_")}
    assert public - {"close"} <= CALLS.keys()
    batch = {f"batch.{name}" for name in vars(Batch) if not name.startswith("_")}
    for_the_lanes = {"on_cancel", "expect", "wanted", "moved", "failed", "skipped", "pause", "cancelled"}
    assert batch - {f"batch.{name}" for name in for_the_lanes} <= CALLS.keys()


def test_the_end_of_a_child_leaves_its_parents_engine_alone(engine: TransferEngine, segment: Segment) -> None:
    def end() -> bool:
        with engine:
            pass
        engine.close()
        gc.collect()
        return True

    assert in_child(end)
    assert read(engine, segment, 5)


def test_a_child_makes_an_engine_of_its_own(engine: TransferEngine, segment: Segment, source: TransferEngine) -> None:
    def work() -> bool:
        with TransferEngine() as own:
            return read(own, own.open_segment(source.segment_name), 7)

    assert in_child(work)
    assert in_child(lambda: in_child(work))
    assert read(engine, segment, 7)


def test_locks_that_were_taken_at_the_fork_hold_up_no_child(engine: TransferEngine, tmp_path: Path) -> None:
    """Another thread may have stood in the middle of anything."""
    from engine.memory import buffers

    (tmp_path / "f").write_bytes(bytes(100))
    with buffers._CACHE._lock, engine._segments._lock, engine._publishing:

        def work() -> bool:
            engine.close()
            with pytest.raises(ForkedProcess):
                engine.open_segment("127.0.0.1:1")
            with TransferEngine() as own:
                return own.unregister_memory(own.register_memory(tmp_path / "f"))

        assert in_child(work)


@pytest.mark.parametrize("what", ["engine", "segment", "batch"])
def test_nothing_of_it_is_copied(what: str, engine: TransferEngine, segment: Segment, batch: Batch) -> None:
    things: dict[str, object] = {"engine": engine, "segment": segment, "batch": batch}
    with pytest.raises(UsageError, match=r"works in one process, .* make one there"):
        pickle.dumps(things[what])
    with pytest.raises(UsageError, match="make one there"):
        copy.copy(things[what])


def test_a_server_of_a_parents_does_nothing_in_a_child() -> None:
    with SegmentServer() as server:

        def work() -> int:
            with pytest.raises(ForkedProcess):
                server.lease(4096, 1)
            server.close()
            return 1

        assert in_child(work)
        socket.create_connection(("127.0.0.1", server.data_port), WAIT).close()


OUTLIVED = """
import os, sys, time
from engine.engine import TransferEngine
peer = TransferEngine()
peer.register_memory(bytes(8))
engine = TransferEngine()
segment = engine.open_segment(sys.argv[1])
engine.read(bytearray(8), segment, segment.buffers[0].address)
ready, say = os.pipe()
if not os.fork():
    os.write(say, b"1")
    os.close(0), os.close(1), os.close(2)
    time.sleep(600)
    os._exit(0)
os.read(ready, 1)
print(engine.data_port, engine.rpc_port, flush=True)
os._exit(0)
"""


def test_a_child_that_lives_on_keeps_no_port_and_no_peer_waiting(source: TransferEngine) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OUTLIVED, source.segment_name], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        ports = [int(port) for port in process.stdout.readline().split()]
        assert process.wait(WAIT) == 0
        try:
            for port in ports:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), WAIT)
            until = time.monotonic() + WAIT
            while source._server.connections:
                assert time.monotonic() < until, "the peer waits for a connection that nobody uses"
                time.sleep(0.05)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)


def test_a_lock_that_is_held_is_not_held_by_a_child(tmp_path: Path) -> None:
    ours = open(tmp_path / "lock", "wb")  # noqa: SIM115 - closed below, while the child lives
    fcntl.flock(forks.hold(ours), fcntl.LOCK_EX)
    read_end, write_end = os.pipe()
    hear_end, tell_end = os.pipe()

    def work() -> bool:
        os.close(write_end)
        os.write(tell_end, b".")
        return os.read(read_end, 1) == b""

    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(in_child(work)))
    waiting.start()
    assert select.select([hear_end], [], [], WAIT)[0], "the child does not begin"
    ours.close()
    try:
        with open(tmp_path / "lock", "wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(write_end)
        waiting.join(WAIT)
        for each in (read_end, hear_end, tell_end):
            os.close(each)
    assert found == [True]


def test_a_peer_that_is_gone_is_still_a_peer_that_is_gone(engine: TransferEngine, segment: Segment) -> None:
    """Nothing here takes the place of the errors there were."""
    with pytest.raises(PeerUnreachable):
        engine.open_segment("127.0.0.1:1")
