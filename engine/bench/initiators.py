"""The initiators of a bench: ours, Mooncake's own and the bare socket loop, measured by the same clock."""

from __future__ import annotations

import socket
import threading
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from typing import Any

from engine.bench import wheel
from engine.bench.cases import Case, Operation
from engine.bench.memory import Memory
from engine.bench.socket_loop import stream
from engine.bench.statistics import Measurement
from engine.bench.targets import BUFFER, TargetAddress
from engine.engine import P2PHANDSHAKE, TransferEngine
from engine.errors import BytesDiffer, PeerUnreachable
from engine.net import addresses
from engine.protocol.wire import Opcode
from engine.transfer.requests import TransferRequest

VERIFY_BATCHES = 3
"""Batches that each thread writes, reads back and compares before a case is measured."""

_FOLD = 1 << 16
_POISON = -1
_OPCODES = {
    Operation.READ: (Opcode.READ,),
    Operation.WRITE: (Opcode.WRITE,),
    Operation.MIXED: (Opcode.READ, Opcode.WRITE),
}
Move = Callable[[Opcode], None]
"""Moves one batch, and returns when it is done."""


class Initiator(ABC):
    """Moves the batches of a case between its own memory and a target's."""

    name: str

    def __init__(self, target: TargetAddress, length: int) -> None:
        self.target = target
        self.memory = Memory(length)

    @abstractmethod
    def measure(self, case: Case, seconds: float) -> Measurement:
        """Do it for ``seconds``, or one batch a thread where that takes longer. Raises what a thread raised."""

    @abstractmethod
    def verify(self, case: Case, seed: int) -> None:
        """Bring the case's memory to a pattern that follows from ``seed``, at both ends, and see that it came there.

        Raises ``BytesDiffer``.
        """

    @abstractmethod
    def verify_after(self, case: Case, seed: int) -> None:
        """After measuring what ``verify`` prepared: see that both ends still hold the pattern. Raises as ``verify``."""


class ThreadedInitiator(Initiator):
    """An initiator whose threads are this process's."""

    def measure(self, case: Case, seconds: float) -> Measurement:
        """See ``Initiator.measure``."""
        cpu = time.process_time()
        parts = in_threads(case.threads, lambda index: self._thread(case, index * case.batch_bytes, seconds))
        cpu = time.process_time() - cpu
        # The time until the last thread has ended.
        spent = max(part.seconds for part in parts)
        whole = Measurement(spent, sum(part.batches for part in parts), sum(part.bytes for part in parts), cpu=cpu)
        for part in parts:
            whole.latencies.merge(part.latencies)
        return whole

    @abstractmethod
    def _thread(self, case: Case, offset: int, seconds: float) -> Measurement:
        """What one thread does, whose memory begins at ``offset``."""


class SocketInitiator(ThreadedInitiator):
    """The bare socket loop. It has no requests, so there are no latencies, and nothing of it is checked."""

    name = "socket"

    def verify(self, case: Case, seed: int) -> None:
        """Have the pattern here: an engine's target may be ours, and is checked afterwards."""
        self.memory.fill(seed + VERIFY_BATCHES - 1, 0, case.footprint)

    def verify_after(self, case: Case, seed: int) -> None:
        """Nothing."""

    def _thread(self, case: Case, offset: int, seconds: float) -> Measurement:
        address = self.target.host, self.target.socket_port
        try:
            return stream(address, memoryview(self.memory.map), case, offset, seconds)
        except OSError as error:
            detail = f"the socket loop: {(error.strerror or str(error)).lower()}"
            raise PeerUnreachable(peer=addresses.join(*address), detail=detail) from None


class EngineInitiator(ThreadedInitiator):
    """An engine, which has requests. What is measured counts whole batches; a request takes as long as its batch."""

    @abstractmethod
    def mover(self, case: Case, offset: int) -> Move:
        """What moves the batches of the thread whose memory begins at ``offset``."""

    def _thread(self, case: Case, offset: int, seconds: float) -> Measurement:
        move = self.mover(case, offset)
        opcodes = _OPCODES[case.operation]
        result, lapses = Measurement(0.0, 0, 0), array("Q")
        began = before = time.perf_counter_ns()
        until = began + int(seconds * 1e9)
        while before < until or not result.batches:
            move(opcodes[result.batches % len(opcodes)])
            now = time.perf_counter_ns()
            lapses.append(now - before)
            before = now
            result.batches += 1
            if len(lapses) >= _FOLD:
                result.latencies.add(lapses, case.batch_size)
                del lapses[:]
                before = time.perf_counter_ns()
        result.seconds = (before - began) / 1e9
        result.bytes = result.batches * case.batch_bytes
        result.latencies.add(lapses, case.batch_size)
        return result

    def verify(self, case: Case, seed: int) -> None:
        """Write patterns, read them back and compare, with all threads at a time; see ``Initiator.verify``."""

        def check(index: int) -> None:
            offset = index * case.batch_bytes
            move = self.mover(case, offset)
            for turn in range(VERIFY_BATCHES):
                self.memory.fill(seed + turn, offset, case.batch_bytes)
                move(Opcode.WRITE)
                self._read_back(case, move, offset, seed + turn)

        in_threads(case.threads, check)

    def verify_after(self, case: Case, seed: int) -> None:
        """Compare here, then read back and compare again; see ``Initiator.verify_after``."""

        def check(index: int) -> None:
            offset, last = index * case.batch_bytes, seed + VERIFY_BATCHES - 1
            self._compare(case, offset, last)
            self._read_back(case, self.mover(case, offset), offset, last)

        in_threads(case.threads, check)

    def _read_back(self, case: Case, move: Move, offset: int, seed: int) -> None:
        self.memory.fill(_POISON, offset, case.batch_bytes)
        move(Opcode.READ)
        self._compare(case, offset, seed)

    def _compare(self, case: Case, offset: int, seed: int) -> None:
        wrong = self.memory.first_difference(seed, offset, case.batch_bytes)
        if wrong is not None:
            raise BytesDiffer(
                engine=self.name,
                operation=case.operation.value,
                block_size=case.block_size,
                offset=wrong,
                length=self.memory.length,
            )


class OurInitiator(EngineInitiator):
    """Our engine: its synchronous forms for single requests, else a batch that is submitted and waited for."""

    name = "ours"

    def __init__(
        self,
        target: TargetAddress,
        length: int,
        metadata_server: str = P2PHANDSHAKE,
        protocol: str = "tcp",
        device: str = "",
    ) -> None:
        """Raises as ``TransferEngine`` and its ``open_segment``."""
        super().__init__(target, length)
        self._engine = TransferEngine(_own_name(metadata_server), metadata_server, protocol, device)
        self._local = self._engine.register_memory(self.memory.map, name=BUFFER)
        self._segment = self._engine.open_segment(target.segment)

    def close(self) -> None:
        """Withdraw the initiator's own segment."""
        self._engine.close()

    def mover(self, case: Case, offset: int) -> Move:
        """See ``EngineInitiator.mover``."""
        engine, local, segment, block = self._engine, self._local, self._segment, case.block_size
        base = self.target.address
        if case.batch_size == 1:

            def move_one(opcode: Opcode) -> None:
                act = engine.read if opcode is Opcode.READ else engine.write
                act(local, segment, base + offset, block, offset=offset)

            return move_one
        places = range(offset, offset + case.batch_bytes, block)
        requests = {
            opcode: [TransferRequest(opcode, local, segment, base + at, block, at) for at in places]
            for opcode in Opcode
        }

        def move(opcode: Opcode) -> None:
            batch = engine.submit_transfer(requests[opcode])
            batch.wait()
            batch.raise_failed()

        return move


class WheelInitiator(EngineInitiator):
    """Mooncake's own engine, by the synchronous forms of its Python API."""

    name = "mooncake"

    def __init__(
        self,
        target: TargetAddress,
        length: int,
        metadata_server: str = P2PHANDSHAKE,
        protocol: str = "tcp",
        device: str = "",
    ) -> None:
        """Raises as ``wheel.load``."""
        super().__init__(target, length)
        name = _own_name(metadata_server)
        self._engine, self._address = wheel.load(self.memory, name, "127.0.0.1", metadata_server, protocol, device)

    def mover(self, case: Case, offset: int) -> Move:
        """See ``EngineInitiator.mover``."""
        engine, segment, block = self._engine, self.target.segment, case.block_size
        mine, theirs = self._address, self.target.address
        if case.batch_size == 1:

            def move_one(opcode: Opcode) -> None:
                act = engine.transfer_sync_read if opcode is Opcode.READ else engine.transfer_sync_write
                wheel.check(act(segment, mine + offset, theirs + offset, block))

            return move_one
        places = range(offset, offset + case.batch_bytes, block)
        ours, remote = [mine + at for at in places], [theirs + at for at in places]
        lengths = [block] * case.batch_size

        def move(opcode: Opcode) -> None:
            act = engine.batch_transfer_sync_read if opcode is Opcode.READ else engine.batch_transfer_sync_write
            wheel.check(act(segment, ours, remote, lengths))

        return move


def in_threads(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What ``act`` returns for 0 to ``count`` - 1, each in its thread; all begin together. Raises the first error."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def thread(index: int) -> None:
        barrier.wait()
        try:
            results[index] = act(index)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=thread, args=(index,), name=f"bench:{index}") for index in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if errors:
        raise errors[0]
    return results


def _own_name(metadata_server: str) -> str:
    """A local hostname; in a metadata server it is a key, and must be nobody else's."""
    if metadata_server == P2PHANDSHAKE:
        return "127.0.0.1"
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"
