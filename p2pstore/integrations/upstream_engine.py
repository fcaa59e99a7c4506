"""Upstream's ``mooncake.engine`` over this engine: its names, pointers in place of objects, numbers in place of errors.

It is what programs import as ``mooncake.engine`` where ``p2pstore.integrations.shim`` has put it there. Peers name
memory by its pointer. What went wrong last is in ``last_error``, in words, and in the log.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Sequence
from enum import IntEnum

from engine import engine as ours
from engine.engine import Batch, Opcode, RegisteredMemory, Segment, TransferRequest, TransferState
from engine.errors import MooncakeError, UsageError
from engine.memory.copying import address_of, view_of
from p2pstore.kv.client import device_memory

FAILED = -1
"""What calls return that went wrong, as upstream's do."""

OVER, RUNNING = 1, 0
"""What ``transfer_check_status`` says besides."""

MAX_BATCHES = 4096
"""Transfers under way that were begun and not asked for."""

WAIT_SECONDS = 60.0
"""For the end of transfers that were begun, in ``get_batch_transfer_status``."""

log = logging.getLogger(__name__)


class TransferOpcode(IntEnum):
    """Which way bytes go."""

    Read = 0
    Write = 1


class TransferNotify:
    """A short message to a peer's process."""

    def __init__(self, name: str = "", msg: str = "") -> None:
        self.name = name
        self.msg = msg


class TransferEngine:
    """An engine as upstream's class of this name is one. It is of no use before ``initialize``. Thread-safe."""

    def __init__(self) -> None:
        self._engine: ours.TransferEngine | None = None
        self._lock = threading.Lock()
        self._registered: dict[int, RegisteredMemory] = {}
        self._own: dict[int, bytearray] = {}
        self._segments: dict[str, Segment] = {}
        self._batches: dict[int, Batch] = {}
        self._numbers = itertools.count(1)
        self.last_error = ""
        """What went wrong last, in words."""

    # Life

    def initialize(self, local_hostname: str, metadata_server: str, protocol: str, device_name: str) -> int:
        """Serve a segment."""
        try:
            self._engine = ours.TransferEngine(local_hostname, metadata_server, protocol, device_name)
        except MooncakeError as error:
            return self._say(error)
        return 0

    def initialize_ext(
        self, local_hostname: str, metadata_server: str, protocol: str, device_name: str, metadata_type: str
    ) -> int:
        """The same with the kind of metadata server apart."""
        if metadata_type and "://" not in metadata_server and metadata_server != ours.P2PHANDSHAKE:
            metadata_server = f"{metadata_type}://{metadata_server}"
        return self.initialize(local_hostname, metadata_server, protocol, device_name)

    def get_rpc_port(self) -> int:
        """The port under which peers ask for this segment, ``host:port``; 0 before ``initialize``."""
        return 0 if self._engine is None else self._engine.rpc_port

    # Memory

    def register_memory(self, buffer_addr: int, capacity: int, location: str = "*") -> int:
        """Let peers read and write memory."""
        return self.batch_register_memory([buffer_addr], [capacity], location)

    def batch_register_memory(
        self,
        buffer_addresses: Sequence[int],
        capacities: Sequence[int],
        location: str = "*",  # noqa: ARG002 - upstream's
    ) -> int:
        """The same for several; all of them or none."""
        try:
            gpu = device_memory.driver()
            if gpu is not None and any(map(gpu.owns, buffer_addresses)):
                detail = "it is a GPU's memory, which this engine does not read; the pooled store copies it"
                raise UsageError(detail=detail)
            views = [_memory(*each) for each in _pairs(buffer_addresses, capacities)]
            made = self._open().register_memory_batch(views, writable=True, addresses=buffer_addresses)
        except MooncakeError as error:
            return self._say(error)
        self._registered.update(zip(buffer_addresses, made, strict=True))
        return 0

    def unregister_memory(self, buffer_addr: int) -> int:
        """Take memory back from peers."""
        return self.batch_unregister_memory([buffer_addr])

    def batch_unregister_memory(self, buffer_addresses: Sequence[int]) -> int:
        """The same for several; all of them or none. Where this fails the memory must stay."""
        try:
            engine = self._open()
            with self._lock:
                unknown = [each for each in buffer_addresses if each not in self._registered]
                if unknown:
                    raise UsageError(detail=f"nothing is registered at {unknown[0]:#x}")
                if len(set(buffer_addresses)) < len(buffer_addresses):
                    raise UsageError(detail="one address is named twice")
                memories = [self._registered.pop(each) for each in buffer_addresses]
            if not engine.unregister_memory_batch(memories):
                return self._say("a transfer still uses memory that peers are offered no more: do not free it")
        except MooncakeError as error:
            return self._say(error)
        return 0

    def allocate_managed_buffer(self, length: int) -> int:
        """Memory that peers may read and write; its address, or 0."""
        memory = bytearray(max(length, 1))
        with memoryview(memory) as view:
            address = address_of(view)
        if self.register_memory(address, len(memory)):
            return 0
        self._own[address] = memory
        return address

    def free_managed_buffer(self, buffer_addr: int, length: int) -> int:  # noqa: ARG002 - upstream's
        """Take such memory back."""
        code = self.unregister_memory(buffer_addr)
        if not code:
            self._own.pop(buffer_addr, None)
        return code

    def write_bytes_to_buffer(self, dest_address: int, data: bytes | str, length: int) -> int:
        """Copy bytes to an address."""
        source = data.encode() if isinstance(data, str) else data
        try:
            _memory(dest_address, length)[:] = source[:length]
        except (UsageError, ValueError) as error:
            return self._say(UsageError(detail=str(error)))
        return 0

    def read_bytes_from_buffer(self, source_address: int, length: int) -> bytes:
        """The bytes at an address."""
        return bytes(_memory(source_address, length))

    def get_first_buffer_address(self, segment_id: str) -> int:
        """Where a peer's first buffer is; 0 where it has none, or is not there."""
        try:
            buffers = self._segment(segment_id).buffers
        except MooncakeError as error:
            self._say(error)
            return 0
        return buffers[0].address if buffers else 0

    # Transfers

    def transfer_sync_write(
        self, target: str, buffer: int, peer_buffer_address: int, length: int, hint: str = ""
    ) -> int:
        """Take memory to a peer's, and return when it is there."""
        return self.batch_transfer_sync_write(target, [buffer], [peer_buffer_address], [length], hint)

    def transfer_sync_read(
        self, target: str, buffer: int, peer_buffer_address: int, length: int, hint: str = ""
    ) -> int:
        """Bring a peer's memory to ours."""
        return self.batch_transfer_sync_read(target, [buffer], [peer_buffer_address], [length], hint)

    def transfer_sync(
        self,
        target: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        opcode: TransferOpcode,
        notify: TransferNotify | None = None,
        hint: str = "",
    ) -> int:
        """Either, and a message to the peer when it is done."""
        return self.batch_transfer_sync(target, [buffer], [peer_buffer_address], [length], opcode, notify, hint)

    def batch_transfer_sync_write(
        self, target: str, buffers: Sequence[int], peers: Sequence[int], lengths: Sequence[int], hint: str = ""
    ) -> int:
        """Take several pieces of memory to a peer's."""
        return self.batch_transfer_sync(target, buffers, peers, lengths, TransferOpcode.Write, None, hint)

    def batch_transfer_sync_read(
        self, target: str, buffers: Sequence[int], peers: Sequence[int], lengths: Sequence[int], hint: str = ""
    ) -> int:
        """Bring several pieces of a peer's memory to ours."""
        return self.batch_transfer_sync(target, buffers, peers, lengths, TransferOpcode.Read, None, hint)

    def batch_transfer_sync(
        self,
        target: str,
        buffers: Sequence[int],
        peers: Sequence[int],
        lengths: Sequence[int],
        opcode: TransferOpcode,
        notify: TransferNotify | None = None,
        hint: str = "",  # noqa: ARG002 - upstream's
    ) -> int:
        """Either, and a message to the peer when all are done."""
        try:
            batch = self._open().carry_out(self._requests(target, buffers, peers, lengths, opcode))
            batch.raise_failed()
            if notify is not None:
                self._open().notify(target, notify.name, notify.msg)
        except MooncakeError as error:
            self._segments.pop(target, None)
            return self._say(error)
        return 0

    def batch_transfer_async(
        self,
        target: str,
        buffers: Sequence[int],
        peers: Sequence[int],
        lengths: Sequence[int],
        opcode: TransferOpcode,
        hint: str = "",  # noqa: ARG002 - upstream's
    ) -> int:
        """Begin transfers; a number for ``get_batch_transfer_status``, or 0."""
        try:
            if len(self._batches) >= MAX_BATCHES:
                raise UsageError(detail=f"{MAX_BATCHES} batches were begun and not asked for")
            batch = self._open().submit_transfer(self._requests(target, buffers, peers, lengths, opcode))
        except MooncakeError as error:
            self._segments.pop(target, None)
            self._say(error)
            return 0
        number = next(self._numbers)
        self._batches[number] = batch
        return number

    def batch_transfer_async_write(
        self, target: str, buffers: Sequence[int], peers: Sequence[int], lengths: Sequence[int], hint: str = ""
    ) -> int:
        """Begin to take memory to a peer's."""
        return self.batch_transfer_async(target, buffers, peers, lengths, TransferOpcode.Write, hint)

    def batch_transfer_async_read(
        self, target: str, buffers: Sequence[int], peers: Sequence[int], lengths: Sequence[int], hint: str = ""
    ) -> int:
        """Begin to bring a peer's memory to ours."""
        return self.batch_transfer_async(target, buffers, peers, lengths, TransferOpcode.Read, hint)

    def get_batch_transfer_status(self, batch_ids: Sequence[int]) -> int:
        """Wait for batches that were begun: 0 where all went well. Each can be asked for once."""
        code = 0
        for number in batch_ids:
            batch = self._batches.pop(number, None)
            try:
                if batch is None:
                    raise UsageError(detail=f"there is no batch {number}")
                if not batch.wait(WAIT_SECONDS):
                    batch.cancel()
                    code = self._say(f"batch {number} has not ended in {WAIT_SECONDS:g} s")
                    continue
                batch.raise_failed()
            except MooncakeError as error:
                code = self._say(error)
        return code

    def transfer_submit_write(
        self, target: str, buffer: int, peer_buffer_address: int, length: int, hint: str = ""
    ) -> int:
        """Begin to take memory to a peer's; a number for ``transfer_check_status``, or -1."""
        return self.batch_transfer_async_write(target, [buffer], [peer_buffer_address], [length], hint) or FAILED

    def transfer_check_status(self, batch_id: int) -> int:
        """1 where it is done, 0 where it is under way, -1 where it failed."""
        batch = self._batches.get(batch_id)
        if batch is None:
            return self._say(UsageError(detail=f"there is no batch {batch_id}"))
        if not batch.done:
            return RUNNING
        self._batches.pop(batch_id, None)  # another thread may have asked, too
        done = all(each.state is TransferState.COMPLETED for each in batch.statuses())
        return OVER if done else FAILED

    # Messages

    def get_notifies(self) -> list[TransferNotify]:
        """Messages from peers since the last call."""
        try:
            return [TransferNotify(each.name, each.text) for each in self._open().notifications()]
        except MooncakeError as error:
            self._say(error)
            return []

    def send_probe(self, target: str) -> int:
        """Ask a peer's process whether it lives."""
        try:
            self._open().probe(target)
        except MooncakeError as error:
            return self._say(error)
        return 0

    # Inside

    def _open(self) -> ours.TransferEngine:
        if self._engine is None:
            raise UsageError(detail="the engine is not initialized")
        return self._engine

    def _say(self, error: MooncakeError | str) -> int:
        self.last_error = str(error)
        log.warning("%s", error)
        return FAILED

    def _segment(self, name: str) -> Segment:
        found = self._segments.get(name)
        if found is None:
            found = self._segments[name] = self._open().open_segment(name)
        return found

    def _requests(
        self,
        target: str,
        buffers: Sequence[int],
        peers: Sequence[int],
        lengths: Sequence[int],
        opcode: TransferOpcode,
    ) -> list[TransferRequest]:
        if len(peers) != len(buffers):
            raise UsageError(detail=f"{len(buffers)} addresses here, {len(peers)} there")
        segment = self._segment(target)
        kind = Opcode.READ if opcode == TransferOpcode.Read else Opcode.WRITE
        return [
            TransferRequest(kind, _memory(at, length), segment, to, length)
            for (at, length), to in zip(_pairs(buffers, lengths), peers, strict=True)
        ]

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.close()


def exported() -> dict[str, object]:
    """Upstream's names, and what they stand for."""
    return {
        "TransferEngine": TransferEngine,
        "TransferNotify": TransferNotify,
        "TransferOpcode": TransferOpcode,
        **TransferOpcode.__members__,
    }


def _pairs(addresses: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int]]:
    if len(addresses) != len(lengths):
        raise UsageError(detail=f"{len(addresses)} addresses and {len(lengths)} lengths")
    return list(zip(addresses, lengths, strict=True))


def _memory(address: int, length: int) -> memoryview:
    """The memory at an address, which the caller answers for. Raises ``UsageError`` for what can be none."""
    if address <= 0 or length <= 0:
        raise UsageError(detail=f"{length} bytes at address {address:#x} are no memory")
    return view_of(address, length)
