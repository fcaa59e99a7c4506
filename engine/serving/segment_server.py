"""A segment as it is served: registered memory, the servers that offer it, and the transports that read others'."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from engine import transports
from engine.errors import TransportUnavailable, UsageError
from engine.forks import Origin
from engine.memory.address_space import AddressSpace, Lease
from engine.memory.buffers import Buffer
from engine.net import addresses
from engine.net.host_id import host_id
from engine.net.listening import address_of
from engine.net.published import published
from engine.net.rate import RateLimit
from engine.net.threads import Failure
from engine.protocol.local_socket import socket_of
from engine.protocol.segment import RDMA, TCP, SegmentDescriptor
from engine.protocol.wire import LATEST_VERSION
from engine.serving.descriptor_server import DescriptorServer
from engine.serving.handshake_server import HandshakeServer
from engine.serving.tcp_server import TcpServer
from engine.transports.base import Channel, PeerAddress, Transport
from engine.transports.into_memory import IntoMemory
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.owner.server import RdmaServer
from engine.transports.rdma.owner.whole_buffers import WholeBuffers
from engine.transports.rdma.reader.transport import RdmaTransport, open_nics

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

log = logging.getLogger(__name__)


class SegmentServer:
    """One segment: an address space, its data, handshake and descriptor servers, and channels to other segments.

    It serves from construction to ``close``. Thread-safe.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        name: str = "",
        advertise: str | None = None,
        local_socket: Path | None = None,
        data_port: int = 0,
        rpc_port: int = 0,
        ports: range | None = None,
        publish_buffers: bool = True,
        key: str = "",
        protocol_version: int = LATEST_VERSION,
        upload_limit: RateLimit | None = None,
        rdma: bool | str | Nics | WholeBuffers = False,
        on_notify: Callable[[str, str], None] | None = None,
        hand_over: bool = False,
    ) -> None:
        """Listen on ``host``, which may be an interface or a network; tell peers to come to ``advertise``.

        ``advertise`` defaults to ``host`` or, where that is a wildcard, to what ``engine.net.published`` finds.
        ``name`` is the segment's in a metadata server; by default it is ``host:rpc_port``. Without ``local_socket`` no
        peer is handed descriptors. Ports of 0 are chosen by the system, or from ``ports``.
        ``publish_buffers`` says whether the handshake, which has no authentication, lists what is registered; without
        it peers learn addresses elsewhere. With a ``key`` (``engine.protocol.key``) nobody is served over the network
        who does not show that. ``rdma`` offers everything over RDMA too, where a device can be used
        (``rdma_reason`` says why not), and reads over the same devices; text names those to use. Given
        ``WholeBuffers``, each buffer is registered whole and at once, and the descriptor lists the keys.
        ``protocol_version`` is what peers are told; both are understood. With ``hand_over`` processes of this user on
        this host are given shared memory (``engine.memory.shared``) under the segment's name.

        Raises ``UsageError`` when a port or the socket cannot be had, and ``NoSuchAddress`` for an address.
        """
        self._origin = Origin("this SegmentServer")
        self._name = name
        host = address_of(host)
        self._host = advertise or published(host)
        self._publish_buffers = publish_buffers
        self._key = key
        self._protocol_version = protocol_version
        self._space = AddressSpace()
        self._transports: dict[str, Transport] = {}
        self._lock = threading.Lock()
        self._host_id = host_id()
        self._limit = upload_limit or RateLimit()
        self._data = TcpServer(self._space, host, data_port, ports=ports, upload_limit=upload_limit, key=key)
        self._handshake: HandshakeServer | None = None
        self._local: DescriptorServer | None = None
        self._rdma: RdmaServer | None = None
        self._nics: Nics | None = None
        self._offers: WholeBuffers | None = None
        self.rdma_reason = "it is not asked for"
        try:
            if rdma is not False:
                self._offer_rdma(rdma)
            self._handshake = HandshakeServer(
                self.descriptor,
                host,
                rpc_port,
                ports=ports,
                on_notify=on_notify,
                on_connection=self._rdma.take_over if self._rdma is not None else None,
            )
            self._rpc_port = self._handshake.port
            if local_socket is not None and self._host_id:
                self._local = DescriptorServer(self._space, local_socket)
            elif hand_over:
                self._hand_over()
            self._handshake.start()
        except BaseException:
            self.close()
            raise

    def _hand_over(self) -> None:
        try:
            self._local = DescriptorServer(self._space, socket_of(self.segment_name), idle_timeout=0.0)
        except UsageError as error:  # peers on this host come over TCP, as all others do
            log.warning("segment %s hands no memory to its neighbours: %s", self.segment_name, error)

    def _offer_rdma(self, rdma: bool | str | Nics | WholeBuffers) -> None:  # noqa: FBT001 - what the constructor was given
        try:
            own = isinstance(rdma, (bool, str))
            nics = open_nics(devices=rdma if isinstance(rdma, str) else "") if own else rdma
        except TransportUnavailable as error:
            self.rdma_reason = str(error.fields.get("detail") or error)
            return
        if isinstance(nics, WholeBuffers):
            self._offers, nics = nics, nics.nics
        assert isinstance(nics, Nics)  # noqa: S101 - for the type checker
        self._nics = nics if own else None
        self._rdma = RdmaServer(
            self._space,
            nics,
            lambda: self.segment_name,
            writable=self._offers is not None,
            limit=self._limit,
            key=self._key,
        )
        self.rdma_reason = ""
        self.use(RdmaTransport(nics))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def segment_name(self) -> str:
        """The name that was given, or upstream's under P2PHANDSHAKE: ``host:rpc_port``."""
        return self._name or addresses.join(self._host, self._rpc_port)

    @property
    def host(self) -> str:
        """The host that peers are told."""
        return self._host

    @property
    def key(self) -> str:
        """What peers must show before they are served; empty where everybody is."""
        return self._key

    @property
    def data_port(self) -> int:
        """The port of the TCP data plane."""
        return self._data.port

    @property
    def rpc_port(self) -> int:
        """The port of the handshake."""
        return self._rpc_port

    @property
    def bytes_sent(self) -> int:
        """Bytes of registered buffers sent over TCP so far."""
        return self._data.bytes_sent

    def waiting(self, host: str) -> int:
        """Requests of a host over TCP that wait until others have been served."""
        return self._data.waiting(host)

    @property
    def bytes_granted(self) -> int:
        """Bytes whose descriptors peers on this host were handed so far."""
        return self._local.bytes_granted if self._local is not None else 0

    @property
    def bytes_granted_rdma(self) -> int:
        """Bytes that peers were given the keys of so far, to read them over RDMA."""
        return self._rdma.owner.bytes_granted if self._rdma is not None else 0

    @property
    def rdma_sessions(self) -> int:
        """Peers that are connected over RDMA now."""
        return self._rdma.sessions if self._rdma is not None else 0

    @property
    def connections(self) -> int:
        """Connections of the TCP data plane that are open now."""
        return self._data.connections

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in the threads that serve it: each of these went on, or was not started."""
        servers = (self._data, self._handshake, self._local, self._rdma)
        return tuple(failure for server in servers if server is not None for failure in server.failures)

    def address_of_self(self) -> PeerAddress:
        """What a peer needs to reach this segment."""
        local = self._local if self._local is not None and isinstance(self._local.path, Path) else None
        return PeerAddress(
            segment=self.segment_name,
            host=self._host,
            data_port=self._data.port,
            protocol_version=LATEST_VERSION,
            host_id=self._host_id if local is not None else "",
            local_socket=str(local.path) if local is not None else "",
            rdma=self._rdma.nics.text if self._rdma is not None else "",
            key=self._key,
        )

    def descriptor(self) -> SegmentDescriptor:
        """This segment as the handshake tells it."""
        buffers = self._space.descriptors() if self._publish_buffers else ()
        offers = self._offers
        return SegmentDescriptor(
            name=self.segment_name,
            protocol=TCP if offers is None else RDMA,
            devices=() if offers is None else offers.devices,
            matrix={} if offers is None else offers.matrix,
            tcp_data_port=self._data.port,
            buffers=buffers if offers is None else offers.described(buffers),
            tcp_proto_version=self._protocol_version,
            timestamp=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f"),
        )

    def register(self, buffer: Buffer, *, at: int | None = None) -> int:
        """Serve ``buffer``; its address, ``at`` where one is given. Raises ``UsageError`` as ``AddressSpace.register``.

        Where it is offered over RDMA at once: also ``UsageError`` for one that cannot be, ``LockedMemoryLimit`` and
        ``VerbsFailed``.
        """
        self._origin.check()
        offers = self._offers
        if offers is None:
            return self._space.register(buffer, at=at)
        memory = offers.memory(buffer)
        try:
            address = self._space.register(buffer, like=memory.address, at=at)
        except BaseException:
            memory.close()
            raise
        try:
            offers.add(buffer, memory, address)
        except BaseException:
            self._space.forget(address)
            raise
        return address

    def replace(self, address: int, buffer: Buffer) -> None:
        """See ``AddressSpace.replace``."""
        self._origin.check()
        self._space.replace(address, buffer)
        if self._rdma is not None:
            self._rdma.owner.replaced(address)

    def unregister(self, address: int, *, timeout: float = 0.0) -> bool:
        """See ``AddressSpace.unregister``; whoever reads it over RDMA is refused from then on."""
        self._origin.check()
        rdma = self._rdma
        if rdma is None:
            return self._space.unregister(address, timeout=timeout)
        over = self._space.unregister(address, timeout=timeout, withdraw=lambda: rdma.withdraw(address))
        # After our own transfers, which use the same registration.
        if self._offers is not None:
            self._offers.withdraw(address)
        return over

    def lease(self, address: int, length: int) -> Lease:
        """The range as this process sees it; see ``AddressSpace.resolve``."""
        self._origin.check()
        return self._space.resolve(address, length)

    def transport(self, name: str) -> Transport:
        """The engine's transport of this name. Raises ``TransportUnavailable``."""
        self._origin.check()
        with self._lock:
            found = self._transports.get(name)
            if found is None:
                found = self._transports[name] = transports.transport(name)
            return found

    def use(self, transport: Transport) -> None:
        """Take ``transport`` for its name from now on."""
        with self._lock:
            self._transports[transport.name] = transport

    def open(self, peer: PeerAddress, transport_name: str = "tcp") -> Channel:
        """A new channel to ``peer``. Raises as ``Transport.open``."""
        return self.transport(transport_name).open(peer)

    def read(self, peer: PeerAddress, address: int, view: memoryview, transport_name: str = "tcp") -> None:
        """Fill ``view`` with what lies at ``address`` of ``peer``, over a channel of its own. Raises as ``Channel``."""
        if view.readonly:
            raise UsageError(detail="cannot read into memory that is read-only")
        if not view.nbytes:
            return
        channel = self.open(peer, transport_name)
        try:
            channel.submit(address, view.nbytes)
            channel.receive(IntoMemory(view))
        finally:
            channel.close()

    def close(self) -> None:
        """Stop serving, and let go of all buffers. Ends within a few seconds; twice is harmless.

        In a forked child it does nothing.
        """
        if self._origin.elsewhere:
            return
        for server in (self._local, self._handshake, self._rdma, self._data):
            if server is not None:
                server.close()
        if self._offers is not None:
            self._offers.close()
        self._space.close()
        for transport in list(self._transports.values()):
            transport.close()
        if self._nics is not None:
            self._nics.close()
