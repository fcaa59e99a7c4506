"""The yardsticks over RDMA: the smallest loop of verbs, and perftest's ``ib_read_bw``.

The loop is what an engine cannot beat with the same devices from Python: a queue pair a thread, ``DEPTH`` requests of a
block under way, completions taken as they come, no memory but what the engine moves. perftest is a program in C that
everybody with such cards knows; it busily waits. Where the clock of an emulated processor is refused by it, its own
count of iterations in the time that it was given is taken.
"""

from __future__ import annotations

import re
import resource
import select
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from typing import Any

from engine.bench.cases import Case, Operation
from engine.bench.initiators import Initiator, ThreadedInitiator
from engine.bench.statistics import Measurement
from engine.bench.targets import TargetAddress
from engine.config.settings import EngineSettings
from engine.errors import BenchFailed, UsageError
from engine.memory.region import Region
from engine.metadata.urls import open_directory
from engine.transfer.rdma_connection import addresses_of
from engine.transports.rdma.addresses import pair_up
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.pinned import Pinned
from engine.transports.rdma.reader.session import Session
from engine.transports.rdma.reader.transport import open_nics
from engine.transports.rdma.setup import Setup
from engine.transports.rdma.verbs.interface import (
    Access,
    CompletionQueue,
    QueuePair,
    QueuePairPath,
    WorkOpcode,
    WorkRequest,
    meaning,
)

DEPTH = 16
"""Requests of the loop that are under way on one queue pair."""

TIMEOUT = 20.0
"""Seconds for a completion, or for a handshake."""

PERFTEST = {Operation.READ: "ib_read_bw", Operation.WRITE: "ib_write_bw"}

PERFTEST_SECONDS = 2
"""The shortest time that perftest is given: it counts whole seconds."""

_START_SECONDS = 10.0
_POLL = 64
_LINE = re.compile(r"^ *([0-9]+) +([0-9]+) +[0-9.]+ +([0-9.]+) ", re.MULTILINE)


class VerbsInitiator(ThreadedInitiator):
    """The loop. It checks nothing, and has no latencies."""

    name = "verbs"

    def __init__(self, target: TargetAddress, length: int, metadata_server: str, device: str = "") -> None:
        """``device`` is ours. Raises ``TransportUnavailable``, and as ``SegmentDirectory.resolve``."""
        super().__init__(target, length)
        settings = EngineSettings.load()
        directory = open_directory(metadata_server, settings)
        try:
            self._found = directory.resolve(target.segment)
        finally:
            directory.close()
        self._nics: Nics = open_nics(settings if not device else _only(settings, device))
        self._pinned = Pinned(Region.of(self.memory.map), Access.LOCAL_WRITE)
        self._pinned.register(self._nics)

    def verify(self, case: Case, seed: int) -> None:
        """Nothing: the loop moves what the engine has checked."""

    def verify_after(self, case: Case, seed: int) -> None:
        """Nothing."""

    def _thread(self, case: Case, offset: int, seconds: float) -> Measurement:
        lane = _Lane(self._nics, self._found)
        try:
            return self._loop(lane, case, offset, seconds)
        finally:
            lane.close()

    def _loop(self, lane: _Lane, case: Case, offset: int, seconds: float) -> Measurement:
        opcode = WorkOpcode.WRITE if case.operation is Operation.WRITE else WorkOpcode.READ
        lkey = self._pinned.lkeys()[lane.device]
        block, places = case.block_size, max(1, case.batch_bytes // case.block_size)
        local, remote = self._pinned.remote + offset, self.target.address + offset
        began = time.perf_counter()
        until, posted, done = began + seconds, 0, 0
        while True:
            now = time.perf_counter()
            if now >= until and done == posted:
                return Measurement(now - began, done // case.batch_size, done * block)
            requests: list[WorkRequest] = []
            while now < until and posted + len(requests) - done < DEPTH:
                at = (posted + len(requests)) % places * block
                requests.append(WorkRequest(0, opcode, local + at, lkey, block, remote + at, lane.rkey))
            posted += lane.pair.post(requests)
            done += lane.completed()


class _Lane:
    """A queue pair to the target."""

    def __init__(self, nics: Nics, found: Any) -> None:
        descriptor = found.descriptor
        pairs = pair_up(nics.addresses, addresses_of(descriptor))
        if not pairs:
            raise BenchFailed(role="verbs loop", detail="the target has no RDMA device on a network of ours")
        ours, theirs = pairs[0]
        nic = nics[ours.device]
        self.device = nic.name
        names = [device.name for device in descriptor.devices]
        self.rkey = descriptor.buffers[0].rkeys[names.index(theirs.device)]
        self._session = Session(
            found.host, found.rpc_port, descriptor.name, connect_timeout=TIMEOUT, answer_timeout=TIMEOUT
        )
        self._queue: CompletionQueue = nic.context.completion_queue(2 * DEPTH)
        self.pair: QueuePair = nic.context.queue_pair(self._queue, DEPTH)
        answer = self._session.connect(
            Setup(
                local_nic=f"verbs@{nic.name}",
                peer_nic=f"{descriptor.name}@{theirs.device}",
                numbers=(self.pair.number,),
                gid=nic.gid.raw,
                lid=nic.info.lid,
                mtu=nics.mtu(nic),
                initiate=min(DEPTH, nic.limits.initiate),
                respond=1,
                session=True,
            )
        )
        route = QueuePairPath(
            port=nic.report.port,
            gid_index=nic.gid.index,
            gid=answer.gid,
            lid=answer.lid,
            number=answer.numbers[0],
            mtu=min(nics.mtu(nic), answer.mtu or nics.mtu(nic)),
            initiate=min(DEPTH, nic.limits.initiate, answer.respond or DEPTH),
            respond=1,
        )
        self.pair.connect(route, Access.LOCAL_WRITE)
        self._queue.arm()

    def completed(self) -> int:
        """Wait for completions, and say how many there were. Raises ``BenchFailed`` for a bad one."""
        while not (found := self._queue.poll(_POLL)):
            if not select.select([self._queue.fd], [], [], TIMEOUT)[0]:
                raise BenchFailed(role="verbs loop", detail=f"nothing completed in {TIMEOUT:g} s")
            self._queue.acknowledge()
            self._queue.arm()
        for each in found:
            if each.status:
                raise BenchFailed(role="verbs loop", detail=f"{meaning(each.status).name}: {meaning(each.status).says}")
        return len(found)

    def close(self) -> None:
        self.pair.close()
        self._queue.close()
        self._session.discard()


class PerftestInitiator(Initiator):
    """perftest's programs, both sides on this machine, with a queue pair for each thread."""

    name = "ib_read_bw"

    def __init__(self, target: TargetAddress, length: int, device: str = "", target_device: str = "") -> None:  # noqa: ARG002
        """Raises ``TransportUnavailable`` where a device cannot be used. It moves memory of its own."""
        super().__init__(target, 1)
        settings = EngineSettings.load()
        self._sides = []
        for name in (target_device, device):
            nics = open_nics(_only(settings, name) if name else settings)
            nic = next(iter(nics))
            self._sides.append(["-d", nic.name, "-i", str(nic.report.port), "-x", str(nic.gid.index)])
            nics.close()
        self._host = target.host

    def verify(self, case: Case, seed: int) -> None:
        """Nothing."""

    def verify_after(self, case: Case, seed: int) -> None:
        """Nothing."""

    def measure(self, case: Case, seconds: float) -> Measurement:
        """Let it run for ``seconds``, of which it takes whole ones. Raises ``BenchFailed``."""
        whole = max(PERFTEST_SECONDS, round(seconds))
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        program = PERFTEST[case.operation]
        common = ["-F", "-s", str(case.block_size), "-q", str(case.threads), "-D", str(whole), "-p", str(port)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        server = subprocess.Popen([program, *self._sides[0], *common], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            output = _client([program, *self._sides[1], *common, self._host], whole)
            server.communicate(timeout=_START_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchFailed(role=program, detail=str(error)) from None
        finally:
            server.kill()
            server.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        moved, seconds = _read_output(output, program, whole)
        return Measurement(seconds, moved // case.batch_bytes, moved, cpu=cpu)


def perftest_for(operation: Operation) -> str | None:
    """The path of perftest's program for an operation; None where there is none."""
    return shutil.which(PERFTEST.get(operation, "ib_none_bw"))


def _client(command: list[str], seconds: int) -> str:
    """The output of a client, tried again until its server listens."""
    until = time.monotonic() + _START_SECONDS
    while True:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + TIMEOUT, check=False)
        if _LINE.search(done.stdout):
            return done.stdout
        if time.monotonic() > until:
            last = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
            raise BenchFailed(role=command[0], detail=last)
        time.sleep(0.2)


def _read_output(output: str, program: str, seconds: int) -> tuple[int, float]:
    """Bytes and seconds, out of the last line of figures: size, iterations, peak, average in MiB/s.

    The average is 0 where perftest does not trust the processor's clock. Raises ``BenchFailed``.
    """
    found = _LINE.findall(output)
    if not found or not int(found[-1][1]):
        raise BenchFailed(role=program, detail="it reports no iterations")
    size, iterations, average = int(found[-1][0]), int(found[-1][1]), float(found[-1][2])
    moved = size * iterations
    return moved, moved / (average * (1 << 20)) if average else float(seconds)


def _only(settings: EngineSettings, device: str) -> EngineSettings:
    """The settings with this device alone. Raises ``UsageError`` for several."""
    if "," in device:
        raise UsageError(detail=f"a bench uses one device, and not {device!r}")
    return replace(settings, device_name=device)
