"""Values that lie on disks: from our own at once, from another client's by way of its memory."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine import forks
from engine.errors import MooncakeError, RemoteProtocolError
from engine.memory.copying import copy
from engine.net import addresses, sockets
from engine.net.connect import connect
from engine.rpc import disk_calls
from engine.rpc.codes import Code
from engine.rpc.disk_calls import Done, Ready, Wanted, tenant_and_key
from engine.rpc.framing import Splitter
from engine.rpc.messages import DEFAULT_TENANT
from p2pstore.kv.client.plane import DataPlane, Piece
from p2pstore.objects.file_system import words

CONNECT_SECONDS = 3.0
"""For the owner of a disk to take a connection."""

CALL_SECONDS = 20.0
"""For it to have values ready: its disk may be busy."""

TOGETHER_BYTES = 64 << 20
"""Of values that are asked for by one call: so much the owner has to hold in memory for it."""

MAX_OWNERS = 4096
"""Of disks that call values by their key alone, which are remembered."""

RECEIVE_BYTES = 1 << 16

ReadInto = Callable[[str, memoryview], bool]


class Want(NamedTuple):
    """A value on the disk of the client at ``endpoint``, by its name there.

    Of it ``parts`` are wanted: ranges from an offset on, each with the memory that it is to come to.
    """

    name: str
    endpoint: str
    size: int
    parts: Sequence[tuple[int, memoryview]]


class DiskReader:
    """Reads for one client. Thread-safe."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self.fetched = 0
        """Values that others read from their disks for this client."""
        self._own: tuple[str, ReadInto] | None = None
        self._without_tenants: set[str] = set()

    def have(self, endpoint: str, read_into: ReadInto) -> None:
        """What lies at ``endpoint`` is on our own disk."""
        self._own = endpoint, read_into

    def read(self, wanted: Sequence[Want]) -> list[str]:
        """Fill the parts of values; why each did not come, or nothing. Raises ``Closed`` and interruptions."""
        outcome = [""] * len(wanted)
        batches: dict[str, list[list[int]]] = {}
        sizes: dict[str, int] = {}
        for place, want in enumerate(wanted):
            if self._own is not None and want.endpoint == self._own[0]:
                outcome[place] = _from_own(want, self._own[1])
                continue
            of = batches.setdefault(want.endpoint, [])
            if not of or sizes[want.endpoint] + want.size > TOGETHER_BYTES:
                of.append([])
                sizes[want.endpoint] = 0
            of[-1].append(place)
            sizes[want.endpoint] += want.size
        for endpoint, groups in batches.items():
            for group in groups:
                self._fetch(endpoint, wanted, group, outcome)
        return outcome

    def _fetch(self, endpoint: str, wanted: Sequence[Want], group: list[int], outcome: list[str]) -> None:
        try:
            with contextlib.closing(_Line(endpoint)) as line:
                found = self._bring(line, endpoint, [wanted[place] for place in group])
                if found is Code.NOT_FOUND and len(group) > 1:  # one is not there: the others may be
                    for place in group:
                        self._fetch(endpoint, wanted, [place], outcome)
                    return
                ready = _checked(found, endpoint, len(group))
                pieces, owners = [], []
                for place, address in zip(group, ready.addresses, strict=True):
                    for offset, view in wanted[place].parts:
                        pieces.append(Piece(ready.endpoint, address + offset, view))
                        owners.append(place)
                try:
                    faults = self._plane.read(pieces)
                finally:  # all lie in one piece of memory
                    self._plane.let_go(ready.endpoint, ready.addresses[0])
                for place, fault in zip(owners, faults, strict=True):
                    outcome[place] = outcome[place] or ("" if fault is None else str(fault))
                line.let_go(ready.batch)
                self.fetched += len(group)
        except (OSError, RemoteProtocolError) as error:
            why = str(error) if isinstance(error, MooncakeError) else words(error)
            for place in group:
                outcome[place] = f"the disk of {endpoint}: {why}"

    def _bring(self, line: _Line, endpoint: str, asked: Sequence[Want]) -> Ready | Code:
        """Have values lie ready, by the names that their owner has for them: releases before 0.3.12 know no tenants."""
        sizes = [each.size for each in asked]
        forms = [[each.name for each in asked]]
        apart = [tenant_and_key(each.name) for each in asked]
        if all(tenant == DEFAULT_TENANT for tenant, _ in apart):
            forms.append([key for _, key in apart])
        if endpoint in self._without_tenants:
            forms.reverse()
        found: list[Ready | Code] = []
        for names in forms:
            found.append(line.bring(Wanted(names, sizes)))
            if isinstance(found[-1], Ready):
                if names is not forms[0]:
                    self._note(endpoint)
                return found[-1]
        return found[0]

    def _note(self, endpoint: str) -> None:
        """An owner calls values otherwise than was thought."""
        if endpoint in self._without_tenants:
            self._without_tenants.discard(endpoint)
        elif len(self._without_tenants) < MAX_OWNERS:
            self._without_tenants.add(endpoint)


class _Line:
    """A connection to the owner of a disk, for one call."""

    def __init__(self, endpoint: str) -> None:
        """Raises ``OSError``, ``RemoteProtocolError`` for an address that is none."""
        host, _, port = endpoint.rpartition(":")
        if not host or not port.isdecimal():
            raise RemoteProtocolError(peer=endpoint, detail="that is no address")
        self._peer = endpoint
        self._sock = forks.hold(connect(*addresses.given(endpoint, int(port)), timeout=CONNECT_SECONDS))
        self._splitter = Splitter(peer=endpoint, answers=True)
        self._sock.settimeout(CALL_SECONDS)
        sockets.tune(self._sock)

    def bring(self, wanted: Wanted) -> Ready | Code:
        """Have values lie ready. Raises ``OSError``, ``RemoteProtocolError``."""
        self._sock.sendall(disk_calls.ask(1, wanted))
        while True:
            data = self._sock.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            for answer in self._splitter.answers(data):
                return disk_calls.told(answer, self._peer)

    def let_go(self, batch: int) -> None:
        """They came. Nobody waits for the answer."""
        with contextlib.suppress(OSError):
            self._sock.sendall(disk_calls.ask(2, Done(batch)))
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.recv(RECEIVE_BYTES)  # a close before the other has read would take the call back

    def close(self) -> None:
        self._sock.close()


def _checked(found: Ready | Code, endpoint: str, count: int) -> Ready:
    """Raises ``RemoteProtocolError``."""
    if isinstance(found, Code):
        raise RemoteProtocolError(peer=endpoint, detail=found.sentence)
    if len(found.addresses) != count:
        raise RemoteProtocolError(peer=endpoint, detail="an answer of another length than the question")
    return found


def _from_own(want: Want, read_into: ReadInto) -> str:
    parts = want.parts
    whole = len(parts) == 1 and parts[0][0] == 0 and len(parts[0][1]) == want.size
    view = parts[0][1] if whole else memoryview(bytearray(want.size))
    if not read_into(want.name, view):
        return "it is on this client's disk no more"
    if not whole:
        for offset, target in parts:
            copy(target, view[offset : offset + len(target)])
    return ""
