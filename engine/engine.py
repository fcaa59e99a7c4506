"""The transfer engine in upstream's terms: register memory, open segments, submit batches of reads and writes.

It serves its own segment (``engine.serving.segment_server``), is found through a directory (``engine.metadata``), and
moves bytes over the lanes to its peers (``engine.transfer.lanes``).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from engine import arguments, forks
from engine.config.settings import EngineSettings
from engine.errors import (
    AddressError,
    Closed,
    MooncakeError,
    TransportUnavailable,
    UsageError,
)
from engine.memory.buffers import Buffer
from engine.memory.registered import File, RegisteredMemory, into_buffer
from engine.metadata.base import RpcEndpoint
from engine.metadata.handshake import URL as P2PHANDSHAKE
from engine.metadata.urls import open_directory, whereabouts
from engine.net.closing import Closing
from engine.net.threads import Failure
from engine.protocol.segment import RDMA, TCP
from engine.protocol.wire import Opcode
from engine.serving.segment_server import SegmentServer
from engine.transfer.batch import Batch, TransferState, TransferStatus
from engine.transfer.messages import Messages, Notification
from engine.transfer.open_segments import OpenSegments
from engine.transfer.rdma_connection import Carriers
from engine.transfer.remote_segment import Segment
from engine.transfer.requests import TransferRequest
from engine.transfer.submission import Submitter
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.owner.whole_buffers import WholeBuffers
from engine.transports.rdma.reader.transport import open_offers

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter
    from typing_extensions import Self

__all__ = [
    "P2PHANDSHAKE",
    "Batch",
    "File",
    "Notification",
    "Opcode",
    "RegisteredMemory",
    "Segment",
    "TransferEngine",
    "TransferRequest",
    "TransferState",
    "TransferStatus",
]

CLOSE_SECONDS = 15.0
"""For the engine to end: its servers, its lanes and its word to the metadata server each take a few seconds at most."""

WHAT = "this TransferEngine"
"""What errors call it."""

UNREGISTER_TIMEOUT = 30.0
"""Seconds to wait for peers and transfers that still use a buffer."""

log = logging.getLogger(__name__)


class TransferEngine:
    """Reads and writes other segments' memory, and offers its own. Thread-safe; serves until ``close``.

    Example::

        with TransferEngine("127.0.0.1") as engine:
            memory = engine.register_memory(bytearray(1 << 20))
            peer = engine.open_segment("10.0.0.2:15342")
            engine.read(memory, peer, peer.buffers[0].address)
    """

    def __init__(
        self,
        local_hostname: str = "127.0.0.1",
        metadata_server: str = P2PHANDSHAKE,
        protocol: str = "tcp",
        device_name: str = "",
        *,
        bind: str | None = None,
        settings: EngineSettings | None = None,
        nics: Nics | None = None,
        hand_over: bool = False,
    ) -> None:
        """Serve a segment, and publish it.

        ``local_hostname`` is ``host`` or ``host:port``, and the segment's name in a metadata server; under
        P2PHANDSHAKE the name is ``host:rpc_port``, and a port that is given is that one. The host is also where the
        servers listen, unless ``bind`` names another address. It may be an interface (``eth0``) or a network
        (``10.0.0.0/24``): then its address here is meant. Where it stands for all addresses, the one from which the
        metadata server is reached is told.

        ``protocol`` is tcp or rdma. An rdma engine offers its memory over both, and reaches others over RDMA where they
        offer that. ``device_name`` are the RDMA devices to use, joined by commas; all by default, or ``nics``, which
        are open already and stay their owner's. ``settings`` defaults to what the environment says. With ``hand_over``
        other processes of this user on this host are given registered ``SharedMemory``, to copy from and into.

        Raises ``BadConfig``, ``UsageError`` (a port that cannot be had; ``NoSuchAddress`` for an address),
        ``TransportUnavailable`` (another protocol, or no RDMA device that can be used) and what the metadata server
        answers: ``MetadataUnavailable``, ``MetadataRefused``.
        """
        arguments.all_text(
            local_hostname=local_hostname, metadata_server=metadata_server, protocol=protocol, device_name=device_name
        )
        if bind is not None:
            arguments.text(bind, "the address to bind")
        if settings is not None:
            arguments.instance(settings, EngineSettings, "the settings")
        if nics is not None:
            arguments.instance(nics, Nics, "the network cards")
        self.settings = settings or EngineSettings.load()
        for what, why in self.settings.ignored:
            log.warning("%s is ignored: %s", what, why)
        if protocol not in {TCP, RDMA} and not self.settings.force_tcp:
            raise TransportUnavailable(transport=protocol, detail="this engine speaks tcp and rdma")
        self.device_name = device_name
        self.protocol = TCP if self.settings.force_tcp else protocol
        in_store = metadata_server.strip() != P2PHANDSHAKE
        name, host, told, port = whereabouts(local_hostname, metadata_server.strip() if in_store else "")
        self._publishing = threading.Lock()
        self._anonymous = itertools.count(1)
        self._nics: Nics | None = None
        offers: WholeBuffers | None = None
        if self.protocol == RDMA:
            found = replace(self.settings, device_name=device_name) if device_name else self.settings
            self._nics, offers = open_offers(nics, found)
        self._offers = offers
        self._carriers = Carriers(offers, lambda: self.segment_name) if offers is not None else None
        self._directory = open_directory(metadata_server, self.settings)
        self._messages = Messages(self._directory.endpoint, self.settings.connect_timeout)
        try:
            self._server = SegmentServer(
                host if bind is None else bind,
                name=name if in_store else "",
                advertise=self.settings.advertise or told,
                rpc_port=0 if in_store else port,
                ports=self.settings.ports,
                protocol_version=self.settings.protocol_version,
                rdma=offers if offers is not None else False,
                on_notify=self._messages.arrived,
                hand_over=hand_over,
            )
        except BaseException:
            self._directory.close()
            self._close_nics()
            raise
        try:
            self._publish()
        except BaseException:
            self._server.close()
            self._directory.close()
            self._close_nics()
            raise
        self._closing = Closing(WHAT, self._end)
        self._segments = OpenSegments(self._segment, self._closing.check)
        self._submitter = Submitter(self._server, self.settings, self._closing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        forks.refuse_to_be_sent(WHAT)

    # Who we are

    @property
    def segment_name(self) -> str:
        """The name under which others open this segment."""
        return self._server.segment_name

    @property
    def rpc_port(self) -> int:
        """The port of the handshake."""
        return self._server.rpc_port

    @property
    def data_port(self) -> int:
        """The port of the TCP data plane."""
        return self._server.data_port

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in this engine's threads that nobody foresaw."""
        self._closing.check()
        return (*self._server.failures, *self._segments.failures)

    # Memory

    def register_memory(
        self,
        source: Exporter | File | os.PathLike[str] | Buffer,
        *,
        name: str = "",
        writable: bool = False,
    ) -> RegisteredMemory:
        """Offer memory or a file to peers, who may write it if ``writable``.

        Memory is what ``engine.memory.lent`` takes: bytes, arrays, mappings, tensors of the host. It is kept alive
        until it is unregistered. Our own transfers may write memory that peers may not. Raises ``UsageError``,
        ``StorageError``, and as the constructor for publishing.
        """
        name = arguments.text(name, "the name")
        return self.register_memory_batch([source], names=[name] if name else None, writable=writable)[0]

    def register_memory_batch(
        self,
        sources: Sequence[Exporter | File | os.PathLike[str] | Buffer],
        *,
        names: Sequence[str] | None = None,
        writable: bool = False,
        addresses: Sequence[int] | None = None,
    ) -> list[RegisteredMemory]:
        """Register several, and publish once: all of them or none. Raises as ``register_memory``.

        Peers name each by its address, which is chosen here unless ``addresses`` has it: upstream's programs tell one
        another pointers. Raises ``UsageError`` where something is registered at one of those already.
        """
        arguments.instance(sources, Sequence, "what is registered")  # type: ignore[type-abstract]
        if addresses is not None and len(addresses) != len(sources):
            raise UsageError(detail=f"{len(addresses)} addresses for {len(sources)} buffers")
        if names is not None:
            names = arguments.texts(names, "the names")
        if names is not None and len(names) != len(sources):
            raise UsageError(detail=f"{len(names)} names for {len(sources)} buffers")
        made: list[RegisteredMemory] = []
        with self._called():
            try:
                for index, source in enumerate(sources):
                    name = names[index] if names is not None else f"buffer-{next(self._anonymous)}"
                    buffer = into_buffer(source, name, writable=writable)
                    try:
                        address = self._server.register(buffer, at=None if addresses is None else addresses[index])
                    except BaseException:
                        buffer.close()
                        raise
                    made.append(RegisteredMemory(address, buffer.length, buffer.name, buffer.writable))
                self._publish()
            except BaseException:
                for memory in made:
                    with contextlib.suppress(AddressError):  # the engine's end has done it
                        self._server.unregister(memory.address)
                raise
        return made

    def unregister_memory(self, memory: RegisteredMemory, *, timeout: float = UNREGISTER_TIMEOUT) -> bool:
        """Offer it no more, and wait for whoever still uses it; whether that ended. Raises ``AddressError``."""
        return self.unregister_memory_batch([memory], timeout=timeout)

    def unregister_memory_batch(
        self, memories: Iterable[RegisteredMemory], *, timeout: float = UNREGISTER_TIMEOUT
    ) -> bool:
        """Unregister several, and publish once. Raises ``AddressError`` for the first that is not registered."""
        if not isinstance(memories, Iterable):
            raise arguments.refuse(memories, "what is unregistered", "a list of registered memory")
        memories = [arguments.instance(each, RegisteredMemory, "what is unregistered") for each in memories]
        until = time.monotonic() + arguments.seconds(timeout, "the timeout")
        over = True
        with self._called():
            try:
                for memory in memories:
                    over &= self._server.unregister(memory.address, timeout=max(0.0, until - time.monotonic()))
            finally:
                self._publish()
        return over

    # Other segments

    def open_segment(self, name: str) -> Segment:
        """The segment of this name. Its descriptor is read now, and again when a connection fails.

        Raises ``SegmentNotFound``, ``UsageError`` (no address under P2PHANDSHAKE), ``MetadataUnavailable``,
        ``MetadataRefused`` or ``RemoteError``.
        """
        name = arguments.text(name, "a segment's name")
        with self._called():
            return self._segments.open(name)

    def close_segment(self, segment: Segment) -> None:
        """Close its connections; transfers under way are cancelled."""
        self._closing.check()
        arguments.instance(segment, Segment, "what is closed")
        self._segments.close(segment)

    def submit_transfer(self, requests: Iterable[TransferRequest]) -> Batch:
        """Begin all ``requests``; returns at once. Each fails or succeeds by itself.

        Raises ``UsageError`` (and begins none) for a range outside the local memory, a READ into read-only memory, or
        too many requests.
        """
        return self._submitter.submit(requests)

    def carry_out(self, requests: Iterable[TransferRequest]) -> Batch:
        """As ``submit_transfer``, and wait for all of them in this thread, which takes part in moving them.

        An interruption cancels them. How each ended is in the batch.
        """
        return self._submitter.carry_out(requests)

    def read(
        self,
        local: RegisteredMemory | Exporter,
        segment: Segment,
        address: int,
        length: int | None = None,
        *,
        offset: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Bring ``length`` bytes at ``address`` of ``segment`` into ``local`` at ``offset``, and wait for them.

        Raises ``RangeRefused``, ``TransferFailed``, ``PeerUnreachable``, ``PeerStalled`` (not done in ``timeout``
        seconds; None waits as long as bytes arrive), ``RemoteProtocolError``, and as ``submit_transfer``.
        """
        self._submitter.run(TransferRequest(Opcode.READ, local, segment, address, length, offset), timeout)

    def write(
        self,
        local: RegisteredMemory | Exporter,
        segment: Segment,
        address: int,
        length: int | None = None,
        *,
        offset: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Take ``length`` bytes of ``local`` at ``offset`` to ``address``, and return when they are applied there.

        Raises as ``read``.
        """
        self._submitter.run(TransferRequest(Opcode.WRITE, local, segment, address, length, offset), timeout)

    # Notify and probe

    def notify(self, segment: Segment | str, name: str, text: str) -> None:
        """Send a short message to a segment's process. Raises ``RemoteError`` or ``SegmentNotFound``."""
        name, text = arguments.text(name, "the name"), arguments.text(text, "the text")
        with self._called():
            self._messages.notify(_name(segment), name, text)

    def notifications(self) -> list[Notification]:
        """What peers have sent since the last call, oldest first; at most the last ``MAX_NOTIFICATIONS``."""
        self._closing.check()
        return self._messages.take()

    def probe(self, segment: Segment | str) -> float:
        """Ask a segment's process whether it lives; the seconds that its answer took. Raises as ``notify``."""
        with self._called():
            return self._messages.probe(_name(segment))

    def close(self) -> None:
        """Withdraw the segment, stop serving, cancel what is under way. Ends within seconds; twice is harmless.

        Calls under way in other threads raise ``Closed``, and so do later ones. In a forked child it does nothing.
        """
        if not self._closing.close(CLOSE_SECONDS):
            log.warning("segment %s has not ended within %g s", self.segment_name, CLOSE_SECONDS)

    # Inside

    def _end(self) -> None:
        segments = self._segments.take_all()
        try:
            with self._publishing:
                self._directory.withdraw(self.segment_name)
        except MooncakeError as error:
            log.warning("segment %s could not be withdrawn: %s", self.segment_name, error)
        for segment in segments:
            segment.peer.close()
        self._server.close()
        self._directory.close()
        self._close_nics()

    def _close_nics(self) -> None:
        if self._nics is not None:
            self._nics.close()

    @contextlib.contextmanager
    def _called(self) -> Iterator[None]:
        """A call that ``close`` may overtake: then that is why it fails."""
        self._closing.check()
        try:
            yield
        except MooncakeError as error:
            if self._closing.begun and not isinstance(error, Closed):
                raise Closed(what=WHAT) from error
            raise

    def _publish(self) -> None:
        with self._publishing:
            self._directory.publish(self._server.descriptor(), RpcEndpoint(self._server.host, self._server.rpc_port))

    def _segment(self, name: str) -> Segment:
        return Segment(name, lambda: self._directory.resolve(name), self.settings, self._carriers)


def _name(segment: Segment | str) -> str:
    return segment.name if isinstance(segment, Segment) else arguments.text(segment, "a segment, or its name,")
