"""The owner's side of connections: queue pairs for readers, and grants of what they may read.

A connection begins as a handshake of type 0, taken over from the handshake server. A reader of ours keeps it open as a
session: what was made for it lives as long. One of upstream's closes it; its queue pairs stay, by the path of its
network card, until it comes again or others need the room. No request of a reader's is carried out by this process
afterwards: the device reads registered memory by itself.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.errors import AddressError, MooncakeError, RemoteProtocolError, SourceChanged
from engine.net import sockets
from engine.net.rate import RateLimit
from engine.net.threads import Failure, Threads
from engine.protocol.handshake import Decoder, Message, MessageType, encode
from engine.protocol.key import same_key
from engine.transports.rdma.owner.grants import Owner
from engine.transports.rdma.setup import GRANT, KEY, RELEASE, GrantRequest, Setup, granted, refused
from engine.transports.rdma.verbs.interface import Access, CompletionQueue, QueuePair, QueuePairPath

if TYPE_CHECKING:
    from engine.memory.address_space import AddressSpace
    from engine.transports.rdma.nics import Nics, RdmaNic

MAX_SESSIONS = 256
"""Sessions at a time; one more is rejected, and its reader takes TCP."""

MAX_SESSION_PAIRS = 256
"""Queue pairs of one session."""

MAX_GUESTS = 256
"""Network cards of upstream's peers whose queue pairs are kept; one more makes the oldest go."""

MAX_READS = 16
"""READs that one queue pair answers at once, where its device can; upstream's number, too."""

SEND_TIMEOUT = 20.0
"""Seconds for a reader to take an answer."""

GUEST_TIMEOUT = 5.0
"""Seconds for one of upstream's peers to close its handshake."""

CLOSE_TIMEOUT = 5.0
"""Seconds in which the sessions end."""

QUEUE = 16
"""Completions that the queue of an owner's device holds: it asks for nothing, so there are none."""

log = logging.getLogger(__name__)


class _Session:
    """What was made for one reader."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.kept = False
        self.pairs: list[QueuePair] = []
        self.nics: dict[str, RdmaNic] = {}
        self.grants: dict[int, int] = {}
        self.guest = ""


class RdmaServer:
    """Serves one address space over the devices of ``nics``, from construction to ``close``. Thread-safe."""

    def __init__(
        self,
        space: AddressSpace,
        nics: Nics,
        name: Callable[[], str],
        *,
        writable: bool = False,
        limit: RateLimit | None = None,
        key: str = "",
    ) -> None:
        """``name`` is the segment's. ``writable``: peers may write what is registered so (never what is granted).

        With a ``key``, nobody is connected who does not show that.

        The devices cannot be told to send slowly: grants come no faster than ``limit`` allows, instead.
        """
        self._limit = limit or RateLimit()
        self._key = key
        self.nics = nics
        self.owner = Owner(space, remaps=nics.verbs.remaps)
        self._name = name
        self._access = Access.REMOTE_READ | Access.LOCAL_WRITE
        if writable:
            self._access |= Access.REMOTE_WRITE
        self._lock = threading.Lock()
        self._queues: dict[str, CompletionQueue] = {}
        self._sessions: set[_Session] = set()
        self._threads = Threads()
        self._guests: OrderedDict[str, list[QueuePair]] = OrderedDict()
        self._closed = False

    @property
    def sessions(self) -> int:
        """Readers that are connected."""
        return len(self._sessions)

    @property
    def queue_pairs(self) -> int:
        """Queue pairs that are open."""
        with self._lock:
            pairs = sum(len(session.pairs) for session in self._sessions)
            return pairs + sum(len(guests) for guests in self._guests.values())

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in the server's threads."""
        return (*self._threads.failures, *self.owner.failures)

    def take_over(self, sock: socket.socket, message: Message, peer: str) -> bool:
        """Go on with a handshake of type 0 in a thread of its own; whether that is possible. Does not block."""
        session = _Session(sock, peer)
        with self._lock:
            if self._closed or len(self._sessions) >= MAX_SESSIONS:
                return False
            self._sessions.add(session)
        if self._threads.start("RDMA session", self._run, session, message) is not None:
            return True
        with self._lock:
            self._sessions.discard(session)
        return False

    def withdraw(self, base: int) -> None:
        """The buffer at ``base`` is served no more."""
        self.owner.withdraw(base)

    def close(self) -> None:
        """End all sessions, and deregister everything. Twice is harmless."""
        with self._lock:
            self._closed = True
            sessions = list(self._sessions)
        self._threads.stop()
        for session in sessions:
            with contextlib.suppress(OSError):
                session.sock.shutdown(socket.SHUT_RDWR)
        self._threads.join(CLOSE_TIMEOUT)
        with self._lock:
            guests = [pair for pairs in self._guests.values() for pair in pairs]
            self._guests.clear()
        _close_all(guests)
        self.owner.close()
        with self._lock:
            queues, self._queues = list(self._queues.values()), {}
        for queue in queues:
            with contextlib.suppress(MooncakeError):
                queue.close()

    def _run(self, session: _Session, message: Message) -> None:
        try:
            self._serve(session, message)
        except (MooncakeError, OSError) as error:
            log.info("RDMA session with %s ends: %s", session.peer, error)
        finally:
            self._end(session)

    def _end(self, session: _Session) -> None:
        try:
            session.sock.close()
            if not session.guest:
                _close_all(session.pairs)
            for number in session.grants.values():
                with contextlib.suppress(MooncakeError):
                    self.owner.release(number)
        finally:
            with self._lock:
                self._sessions.discard(session)

    def _serve(self, session: _Session, message: Message | None) -> None:
        sock = session.sock
        sockets.set_timeouts(sock, receive=0, send=SEND_TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        while message is not None:
            body = self._answer(session, message.body)
            if body is not None:
                sock.sendall(encode(Message(MessageType.CONNECTION, body, old_form=message.old_form)))
            if not session.kept:
                sock.shutdown(socket.SHUT_WR)
                sockets.set_timeouts(sock, receive=GUEST_TIMEOUT, send=SEND_TIMEOUT)
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1)
                return
            message = _receive(sock, session.peer)

    def _answer(self, session: _Session, body: dict[str, Any]) -> dict[str, Any] | None:
        if GRANT in body or RELEASE in body:
            return self._grant(session, GrantRequest.from_json(body, peer=session.peer))
        wanted = Setup.from_json(body, peer=session.peer)
        if wanted.reject:
            raise RemoteProtocolError(peer=session.peer, detail=f"it asks for nothing: {wanted.reject}")
        if self._key and not same_key(body.get(KEY), self._key):
            log.warning("refused an RDMA connection of %s: it does not show our key", session.peer)
            return self._reject(wanted, "the key is missing or differs").to_json()
        try:
            return self._connect(session, wanted).to_json()
        except MooncakeError as error:
            log.warning("RDMA connection of %s fails: %s", wanted.local_nic or session.peer, error)
            session.kept = session.kept or wanted.session
            return self._reject(wanted, str(error)).to_json()

    def _reject(self, wanted: Setup, reason: str) -> Setup:
        path = f"{self._name()}@{wanted.peer_device}"
        return Setup(path, wanted.local_nic, reject=reason, session=wanted.session)

    def _connect(self, session: _Session, wanted: Setup) -> Setup:
        """Make the other half of ``wanted``. Raises ``VerbsFailed``."""
        nic = self.nics.get(wanted.peer_device)
        if nic is None:
            names = ", ".join(each.name for each in self.nics)
            return self._reject(wanted, f"there is no usable device {wanted.peer_device!r} here, but {names}")
        self._replace(session, wanted)
        if len(session.pairs) + len(wanted.numbers) > MAX_SESSION_PAIRS:
            return self._reject(wanted, f"more than {MAX_SESSION_PAIRS} queue pairs for one reader")
        session.kept = session.kept or wanted.session
        mtu = min(self.nics.mtu(nic), wanted.mtu or self.nics.mtu(nic))
        respond = min(MAX_READS, nic.limits.respond, wanted.initiate or MAX_READS)
        initiate = min(MAX_READS, nic.limits.initiate, wanted.respond or MAX_READS)
        settings = self.nics.settings
        pairs: list[QueuePair] = []
        try:
            for number in wanted.numbers:
                pair = nic.context.queue_pair(self._queue(nic), 1)
                pairs.append(pair)
                route = QueuePairPath(
                    port=nic.report.port,
                    gid_index=nic.gid.index,
                    gid=wanted.gid,
                    lid=wanted.lid,
                    number=number,
                    mtu=mtu,
                    initiate=initiate,
                    respond=respond,
                    service_level=max(0, settings.service_level),
                    traffic_class=max(0, settings.traffic_class),
                    pkey_index=settings.pkey_index,
                )
                pair.connect(route, self._access)
        except BaseException:
            _close_all(pairs)
            raise
        session.nics[nic.name] = nic
        self._keep(session, wanted, pairs)
        return Setup(
            local_nic=f"{self._name()}@{nic.name}",
            peer_nic=wanted.local_nic,
            numbers=tuple(pair.number for pair in pairs),
            gid=nic.gid.raw,
            lid=nic.info.lid,
            mtu=mtu,
            initiate=initiate,
            respond=respond,
            session=wanted.session,
        )

    def _keep(self, session: _Session, wanted: Setup, pairs: list[QueuePair]) -> None:
        if session.kept:
            with self._lock:
                session.pairs += pairs
            return
        session.guest = wanted.local_nic or session.peer
        with self._lock:
            old = self._guests.pop(session.guest, [])
            self._guests[session.guest] = pairs
            while len(self._guests) > MAX_GUESTS:
                old += self._guests.popitem(last=False)[1]
        _close_all(old)

    def _replace(self, session: _Session, wanted: Setup) -> None:
        with self._lock:
            broken = [pair for pair in session.pairs if pair.number in wanted.replaces]
            session.pairs = [pair for pair in session.pairs if pair not in broken]
        _close_all(broken)

    def _queue(self, nic: RdmaNic) -> CompletionQueue:
        with self._lock:
            if nic.name not in self._queues:
                self._queues[nic.name] = nic.context.completion_queue(QUEUE)
            return self._queues[nic.name]

    def _grant(self, session: _Session, ask: GrantRequest) -> dict[str, Any] | None:
        if not session.kept:
            raise RemoteProtocolError(peer=session.peer, detail="a grant is asked for before a connection")
        for number in ask.release:
            ours = session.grants.pop(number, None)
            if ours is not None:
                self.owner.release(ours)
        if not ask.length:
            return None
        try:
            ours, extents = self.owner.grant(ask.address, ask.length, list(session.nics.values()))
        except (AddressError, SourceChanged):
            return refused(ask.id, "it is not served")
        except MooncakeError as error:
            log.warning("%s cannot read over RDMA: %s", session.peer, error)
            return {**refused(ask.id, str(error)), "fault": True}
        session.grants[ask.id] = ours
        left = ask.length
        while left and not self._closed:
            piece = self._limit.piece(left)
            self._limit.spend(piece, lambda: self._closed)
            left -= piece
        return granted(ask.id, extents)


def _receive(sock: socket.socket, peer: str) -> Message | None:
    """The next message of a session; None at its end."""
    decoder = Decoder(peer=peer)
    while True:
        data = sock.recv(1 << 16)
        if not data:
            return None
        message = decoder.feed(data)
        if message is not None:
            return message


def _close_all(pairs: list[QueuePair]) -> None:
    for pair in pairs:
        with contextlib.suppress(MooncakeError):
            pair.close()
