"""Values that are read or written in parts, over several calls, with one question to the master for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from engine.rpc.codes import Code
from engine.rpc.messages import Memory, ObjectMeta, Replica, Replicas, ReplicateConfig, Status
from p2pstore.kv.client.plane import Piece
from p2pstore.kv.client.reading import LEASE_MARGIN, Part
from p2pstore.kv.client.replicas import in_order

if TYPE_CHECKING:
    from p2pstore.kv.client.client import Client

MAX_SESSIONS = 1 << 20
"""Keys at a time, of either kind."""


class _Found(NamedTuple):
    places: list[Memory]
    """The replica that is read, and then those that are for want of it."""
    until: float
    checksum: int | None

    @property
    def size(self) -> int:
        return self.places[0].size


class GetSessions:
    """Where values lie that are being read in parts. Thread-safe."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._found: dict[str, _Found] = {}

    def start(self, keys: Sequence[str]) -> list[int]:
        """Ask where values lie; a code for each. Raises ``MasterUnavailable``."""
        began = time.monotonic()
        codes: list[int] = []
        for key, answer in zip(keys, self._client.master.replicas(list(keys)), strict=True):
            places = [] if isinstance(answer, Code) else self._ordered(answer)
            if not places:
                codes.append(int(answer) if isinstance(answer, Code) else int(Code.BAD_REPLICA))
                continue
            assert isinstance(answer, Replicas)  # noqa: S101 - for the type checker
            with self._lock:
                if len(self._found) >= MAX_SESSIONS and key not in self._found:
                    codes.append(int(Code.BUFFER_OVERFLOW))
                    continue
                until = began + answer.lease_ms / 1000 - LEASE_MARGIN
                self._found[key] = _Found(places, until, answer.checksum)
            codes.append(0)
        return codes

    def read(self, keys: Sequence[str], parts: Sequence[list[Part] | None]) -> list[int]:
        """Read ranges; the bytes of each key, or a code. What is all of a value is compared. Raises ``Closed``."""
        codes = [int(Code.BAD_PARAMS)] * len(keys)
        left: dict[int, tuple[_Found, list[Part]]] = {}
        for place, (key, wanted) in enumerate(zip(keys, parts, strict=True)):
            found = self._live(key)
            if found is None or wanted is None:
                continue
            if time.monotonic() >= found.until:
                codes[place] = self._expired(key)
            elif all(0 <= part.offset <= found.size - len(part.view) for part in wanted):
                codes[place] = sum(len(part.view) for part in wanted)
                left[place] = found, wanted
        read = list(left)
        while left:
            left = self._read_round(keys, left, codes)
        for place in read:
            found = self._live(keys[place])
            if codes[place] >= 0 and (found is None or time.monotonic() >= found.until):
                codes[place] = self._expired(keys[place])
        return codes

    def _read_round(
        self, keys: Sequence[str], left: dict[int, tuple[_Found, list[Part]]], codes: list[int]
    ) -> dict[int, tuple[_Found, list[Part]]]:
        """Read each from its first replica; those for which that failed, and which have another."""
        pieces: list[Piece] = []
        owners: list[int] = []
        for place, (found, wanted) in left.items():
            first = found.places[0]
            for part in wanted:
                pieces.append(Piece(first.endpoint, first.address + part.offset, part.view))
                owners.append(place)
        faults = zip(owners, self._client.plane.read(pieces), strict=True)
        failed = {place: fault for place, fault in faults if fault is not None}
        again: dict[int, tuple[_Found, list[Part]]] = {}
        for place, (found, wanted) in left.items():
            endpoint = found.places[0].endpoint
            if place in failed:
                self._client.reports.failed(endpoint, failed[place])
            else:
                if wanted:
                    self._client.reports.succeeded(endpoint)
                if self._client.reader.is_right(keys[place], endpoint, found.size, found.checksum, wanted):
                    continue
            if len(found.places) == 1:
                codes[place] = int(Code.TRANSFER_FAILED if place in failed else Code.CHECKSUM)
                continue
            rest = found._replace(places=found.places[1:])
            with self._lock:
                if keys[place] in self._found:
                    self._found[keys[place]] = rest
            again[place] = rest, wanted
        return again

    def end(self, keys: Sequence[str]) -> None:
        """Forget values."""
        with self._lock:
            for key in keys:
                self._found.pop(key, None)

    def _live(self, key: str) -> _Found | None:
        with self._lock:
            return self._found.get(key)

    def _expired(self, key: str) -> int:
        self.end([key])
        return int(Code.LEASE_EXPIRED)

    def _ordered(self, answer: Replicas) -> list[Memory]:
        """The replicas in the order in which they are read."""
        places = [
            each.place for each in answer.replicas if each.status == Status.COMPLETE and isinstance(each.place, Memory)
        ]
        plane = self._client.plane
        endpoints = [place.endpoint for place in places]
        order = in_order(endpoints, own=plane.endpoint, near=plane.near, dead=self._client.dead) if places else []
        return [places[each] for each in order]


class _Begun:
    """A value that is being written."""

    def __init__(self, replicas: list[Replica], size: int, *, summed: bool) -> None:
        """``summed`` says whether it is put with a checksum."""
        self.replicas = replicas
        self.size = size
        self.failed: set[str] = set()
        self._lock = threading.Lock()
        self._sum: xxhash.xxh3_64 | None = xxhash.xxh3_64() if summed else None
        self._summed = 0

    def note(self, parts: Sequence[Part]) -> None:
        """Parts are written. Only of a value that is written from its beginning to its end a checksum can be made."""
        with self._lock:
            for part in parts:
                if part.offset != self._summed:
                    self._sum = None
                if self._sum is not None:
                    self._sum.update(part.view)
                self._summed += len(part.view)

    @property
    def checksum(self) -> int | None:
        """Of all of it; None where it has none, or was not written in order."""
        return self._sum.intdigest() if self._sum is not None and self._summed == self.size else None


class PutSessions:
    """Memory of values that are being written in parts. Thread-safe."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._begun: dict[str, _Begun] = {}

    def start(self, keys: Sequence[str], sizes: Sequence[int], config: ReplicateConfig) -> list[int]:
        """Ask for memory; a code for each. Raises ``MasterUnavailable``."""
        codes: list[int] = []
        with self._lock:
            for place, (key, size) in enumerate(zip(keys, sizes, strict=True)):
                bad = key in self._begun or not size
                full = len(self._begun) + place >= MAX_SESSIONS
                codes.append(int(Code.BAD_PARAMS if bad else Code.BUFFER_OVERFLOW if full else Code.OK))
        fresh = [place for place, code in enumerate(codes) if not code]
        if not fresh:
            return codes
        groups = config.group_ids
        if groups is not None:
            config = config._replace(group_ids=[groups[place] for place in fresh])
        answers = self._client.master.put_start(
            [keys[place] for place in fresh], [sizes[place] for place in fresh], config, replace=False
        )
        for place, answer in zip(fresh, answers, strict=True):
            if isinstance(answer, Code):
                codes[place] = int(answer)
            else:
                with self._lock:
                    self._begun[keys[place]] = _Begun(answer, sizes[place], summed=self._client.writer.sums_by_xxh3)
        return codes

    def write(self, keys: Sequence[str], parts: Sequence[list[Part] | None]) -> list[int]:
        """Write ranges to every replica; a code for each key. Raises ``Closed``."""
        codes = [int(Code.BAD_PARAMS)] * len(keys)
        pieces: list[Piece] = []
        owners: list[int] = []
        for place, (key, given) in enumerate(zip(keys, parts, strict=True)):
            with self._lock:
                begun = self._begun.get(key)
            if begun is None or given is None:
                continue
            if any(not 0 <= part.offset <= begun.size - len(part.view) for part in given):
                continue
            codes[place] = 0
            begun.note(given)
            for replica in begun.replicas:
                if isinstance(replica.place, Memory):
                    for part in given:
                        pieces.append(Piece(replica.place.endpoint, replica.place.address + part.offset, part.view))
                        owners.append(place)
        for place, piece, fault in zip(owners, pieces, self._client.plane.write(pieces), strict=True):
            if fault is None:
                self._client.reports.succeeded(piece.endpoint)
                continue
            codes[place] = int(Code.TRANSFER_FAILED)
            self._client.reports.failed(piece.endpoint, fault)
            with self._lock:
                begun = self._begun.get(keys[place])
                if begun is not None:
                    begun.failed.add(piece.endpoint)
        return codes

    def end(self, keys: Sequence[str]) -> list[int]:
        """Let values be read; a code for each, one of which a part could not be written is not. As ``start``."""
        codes = [int(Code.BAD_PARAMS)] * len(keys)
        good: dict[int, ObjectMeta] = {}
        for place, key in enumerate(keys):
            with self._lock:
                begun = self._begun.get(key)
                if begun is not None and not begun.failed:
                    del self._begun[key]
                    good[place] = ObjectMeta(key, begun.checksum)
            if begun is not None and begun.failed:
                codes[place] = int(Code.TRANSFER_FAILED)
        if good:
            ended = self._client.master.put_end(list(good.values()), replace=False)
            for place, code in zip(good, ended, strict=True):
                codes[place] = int(code)
        return codes

    def revoke(self, keys: Sequence[str]) -> list[int]:
        """Give memory back; a code for each. Raises as ``start``."""
        codes = [int(Code.BAD_PARAMS)] * len(keys)
        with self._lock:
            begun = [place for place, key in enumerate(keys) if self._begun.pop(key, None) is not None]
        if begun:
            revoked = self._client.master.put_revoke([keys[place] for place in begun], replace=False)
            for place, code in zip(begun, revoked, strict=True):
                codes[place] = int(code)
        return codes
