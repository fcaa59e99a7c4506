"""The transport: opens channels to peers that have an RDMA device on a network of ours."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.config.settings import EngineSettings
from engine.errors import MooncakeError, TransportUnavailable
from engine.net import addresses
from engine.transports.base import Channel, PeerAddress, Transport
from engine.transports.rdma.addresses import from_text, why_apart
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.owner.whole_buffers import WholeBuffers
from engine.transports.rdma.reader.channel import RdmaChannel, Ring
from engine.transports.rdma.reader.link import Link
from engine.transports.rdma.reader.session import Session
from engine.transports.rdma.verbs.load import load_verbs

if TYPE_CHECKING:
    from collections.abc import Callable

ALL = "all"

CONNECT_TIMEOUT = 5.0
"""Seconds to connect to the peer's handshake port."""

STALL_TIMEOUT = 20.0
"""Seconds without a completion, or for the peer to answer, after which it counts as stalled."""

MAX_IDLE_RINGS = 4
"""Rings that stay pinned between channels: making one costs more than a small transfer."""


class RdmaTransport(Transport):
    """Opens channels over this machine's RDMA devices. Nothing is loaded or opened before it is first asked."""

    name = "rdma"

    def __init__(
        self,
        nics: Nics | Callable[[], Nics] | None = None,
        *,
        segment: str = "reader",
        connect_timeout: float = CONNECT_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        """Uses ``nics``, which stay their owner's, or opens its own. ``segment`` is our name for peers.

        Both times are seconds.
        """
        self._make = nics if callable(nics) else None
        self._nics = nics if isinstance(nics, Nics) else None
        self._owns = not isinstance(nics, Nics)
        self._segment = segment
        self._connect_timeout = connect_timeout
        self._stall_timeout = stall_timeout
        self._lock = threading.Lock()
        self._reason: TransportUnavailable | None = None
        self._rings: list[Ring] = []
        self._out: set[Ring] = set()
        self._closed = False

    def missing(self) -> str:
        """See ``Transport.missing``."""
        try:
            self.nics()
        except TransportUnavailable as error:
            return str(error.fields.get("detail") or error)
        return ""

    def usable(self, peer: PeerAddress) -> str:
        """See ``Transport.usable``. The first call opens the devices, which takes some milliseconds."""
        theirs = from_text(peer.rdma)
        if not theirs:
            return "the peer offers no RDMA device"
        try:
            nics = self.nics()
        except TransportUnavailable as error:
            return str(error.fields.get("detail") or error)
        return why_apart(nics.addresses, theirs)

    def open(self, peer: PeerAddress) -> Channel:
        """See ``Transport.open``."""
        nics = self.nics()
        theirs = from_text(peer.rdma)
        reason = why_apart(nics.addresses, theirs)
        if reason:
            raise TransportUnavailable(transport=self.name, detail=reason)
        _, port = addresses.given(peer.segment)
        session = Session(
            peer.host,
            port,
            peer.segment,
            connect_timeout=self._connect_timeout,
            answer_timeout=self._stall_timeout,
            key=peer.key,
        )
        link = Link(nics, theirs, session, name=self._segment, preferred=frozenset())
        try:
            ring = self._ring(link)
        except BaseException:
            link.close()
            raise
        return RdmaChannel(link, ring, stall_timeout=self._stall_timeout, give_back=self._give_back)

    def nics(self) -> Nics:
        """This machine's devices, opened. Raises ``TransportUnavailable`` with the reason, the same one again."""
        with self._lock:
            if self._nics is not None:
                return self._nics
            if self._closed:
                raise TransportUnavailable(transport=self.name, detail="the transport was closed")
            if self._reason is None:
                try:
                    self._nics = self._make() if self._make is not None else open_nics()
                except TransportUnavailable as error:
                    self._reason = error
                else:
                    return self._nics
            raise self._reason

    def close(self) -> None:
        """Let go of what is kept between channels, and of the devices, once the last channel is closed."""
        with self._lock:
            self._closed = True
            rings, self._rings = self._rings, []
        for ring in rings:
            ring.close()
        self._close_nics()

    def _ring(self, link: Link) -> Ring:
        if not link.session.kept:
            detail = f"{link.peer} gives no grants: it is no agent of ours"
            raise TransportUnavailable(transport=self.name, detail=detail)
        with self._lock:
            ring = self._rings.pop() if self._rings else None
        ring = ring or Ring()
        try:
            ring.prepare(link.nics)
        except MooncakeError:
            ring.close()
            raise
        with self._lock:
            self._out.add(ring)
        return ring

    def _give_back(self, ring: Ring) -> None:
        with self._lock:
            self._out.discard(ring)
            kept = not self._closed and len(self._rings) < MAX_IDLE_RINGS
            if kept:
                self._rings.append(ring)
        if not kept:
            ring.close()
            self._close_nics()

    def _close_nics(self) -> None:
        with self._lock:
            if not self._closed or self._out or not self._owns:
                return
            nics, self._nics = self._nics, None
        if nics is not None:
            nics.close()


def open_nics(settings: EngineSettings | None = None, *, devices: str = "") -> Nics:
    """This machine's usable devices, or those of them that are named, joined by commas; "all" names all.

    ``settings`` default to what the environment says. Raises ``TransportUnavailable`` with the reason.
    """
    found = settings or EngineSettings.load()
    if devices:
        found = replace(found, device_name=None if devices == ALL else devices)
    return Nics(load_verbs(), found)


def open_offers(nics: Nics | None, settings: EngineSettings) -> tuple[Nics | None, WholeBuffers]:
    """The devices that were opened here, if they were, and what will be offered over them. Raises as ``open_nics``."""
    opened = open_nics(settings) if nics is None else nics
    try:
        return (opened if nics is None else None), WholeBuffers(opened)
    except BaseException:
        if nics is None:
            opened.close()
        raise
