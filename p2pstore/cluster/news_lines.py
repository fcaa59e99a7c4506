"""The lines in which a peer tells news of a replica, read. Pure: bytes in, news out, or the peer's fault.

Each line is a JSON object. The first describes the replica; later ones tell of chunks, grants and claims, or that it is
withdrawn; an empty one says that the peer is there. What is unknown is passed over: later versions may say more.
All raise ``RemoteProtocolError`` for what no peer of ours says. ``control`` is the peer's address, which errors name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from engine.protocol.key import is_key
from p2pstore.cluster.news import Availability, Queued, Shared
from p2pstore.cluster.words import MAX_NUMBER
from p2pstore.errors import PeerWithdrew, RemoteProtocolError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.gateway import MAX_TERM, MAX_TOKEN, SHARES, Claim, Rank
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.pace import MAX_LEAD, MAX_PLACES
from p2pstore.swarm.rarity import RUN_CHUNKS

HEARTBEAT_SECONDS = 3.0
"""A peer sends an empty line so often when it has no news of a replica."""

MAX_LINE_BYTES = 4 << 20
"""A line of the availability stream: a bitmap of 16 million chunks fits."""

MAX_WHY = 300
"""Characters of a peer's reason."""

MAX_KEY = 64
"""Characters of the key that a peer knows a listener by."""

MAX_REPEATS = 4
"""How often one line may tell of each chunk: twice happens, when a second copy of the object becomes whole."""

Told = Availability | Shared | Queued | Grant | Claim | list[int]
"""What a line may tell: the replica, first of all, and then news of it; a list is of chunks."""

_decode = json.JSONDecoder().decode  # ``loads`` looks first what encoding it may be, which takes as long again


class Lines:
    """The JSON objects of one stream, one a line."""

    def __init__(self, control: str) -> None:
        self._control = control
        self._rest = b""

    def read(self, part: bytes) -> Iterator[dict[str, Any]]:
        """Those that are whole with the next part of the stream."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            try:
                value = _decode(line.decode())
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise RemoteProtocolError(peer=self._control, detail="a line that is no JSON object")
            yield value
        if len(self._rest) > MAX_LINE_BYTES:
            raise RemoteProtocolError(peer=self._control, detail=f"a line longer than {MAX_LINE_BYTES} bytes")


class NewsReader:
    """What a peer tells of one replica, of an object with so many chunks."""

    def __init__(self, control: str, chunks: int) -> None:
        self._control = control
        self._chunks = chunks
        self._lines = Lines(control)
        self._first = True
        self.withdrawn = False
        """Whether it has told that there is no more of the replica: nothing is to be read any more."""

    def read(self, part: bytes) -> Iterator[Told]:
        """What is told with the next part of the stream. Raises ``PeerWithdrew``, too."""
        for line in self._lines.read(part):
            if self._first:
                self._first = False
                yield read_availability(self._control, line, self._chunks)
            elif read_withdrawal(self._control, line):
                self.withdrawn = True
                return
            elif (news := read_news(self._control, line, self._chunks)) is not None:
                yield news


def read_availability(control: str, line: dict[str, Any], chunks: int) -> Availability:
    """The first line of all: the replica, of an object with so many chunks."""
    address = line.get("address")
    if type(address) is not int or not 0 <= address < 1 << 64:
        raise RemoteProtocolError(peer=control, detail="a replica without an address")
    try:
        have = Bitmap.from_text(str(line.get("bitmap")), chunks)
    except ValueError as error:
        raise RemoteProtocolError(peer=control, detail=f"a replica with {error}") from None
    listener = line.get("listener", "")
    if not isinstance(listener, str) or len(listener) > MAX_KEY:
        raise RemoteProtocolError(peer=control, detail="an invalid listener key")
    shared, grants = line.get("shared") is True, line.get("grants") is True
    return Availability(address, have, read_key(control, line), listener, shared, grants)


def read_news(control: str, line: dict[str, Any], chunks: int) -> Shared | Queued | Grant | Claim | list[int] | None:
    """What a later line tells; None for nothing, or nothing that is known here."""
    if "grant" in line:
        return _grant(control, line, chunks)
    if "have" in line:
        return _chunks(control, line["have"], chunks)
    if "shared" in line:
        return Shared(line["shared"] is True)
    if "gateway" in line:
        return _claim(control, line)
    return Queued(line["queued"]) if type(line.get("queued")) is int else None


def _grant(control: str, line: dict[str, Any], chunks: int) -> Grant:
    number = line["grant"]
    if type(number) is not int or not 0 <= number < MAX_NUMBER:
        raise RemoteProtocolError(peer=control, detail="a grant without a number")
    runs = _runs(control, line.get("run", []), chunks)
    if len(runs) > 1 or any(len(run) > RUN_CHUNKS for run in runs):
        raise RemoteProtocolError(peer=control, detail="a grant of more than one run")
    window, lead = line.get("window"), line.get("lead")
    if type(window) is not int or not 0 < window <= MAX_PLACES or not isinstance(lead, (int, float)):
        raise RemoteProtocolError(peer=control, detail="a grant without a window and a lead")
    return Grant("", number, runs[0] if runs else None, window, float(min(max(0.0, lead), MAX_LEAD)))


def _claim(control: str, line: dict[str, Any]) -> Claim:
    value = line["gateway"]
    limits = (SHARES, MAX_TERM, len(Rank), MAX_TOKEN)
    if not (isinstance(value, list) and len(value) == len(limits) and all(type(n) is int for n in value)):
        raise RemoteProtocolError(peer=control, detail="a claim to be the gateway that is none")
    if not all(0 <= number < limit for number, limit in zip(value, limits, strict=True)):
        raise RemoteProtocolError(peer=control, detail="a claim to be the gateway that is none")
    share, term, rank, token = value
    return Claim(share, term, Rank(rank), token, line.get("own") is True)


def read_key(control: str, answer: dict[str, Any]) -> str:
    """The key that a peer's data plane wants to be shown; empty for none."""
    key = answer.get("key", "")
    if not is_key(key):
        raise RemoteProtocolError(peer=control, detail="an invalid key")
    return str(key)


def read_withdrawal(control: str, line: dict[str, Any]) -> bool:
    """Whether a line says that there is no more of the replica. Raises ``PeerWithdrew`` where it says why."""
    if not line.get("gone"):
        return False
    why = line.get("why")
    if isinstance(why, str) and why:
        raise PeerWithdrew(peer=control, detail=why[:MAX_WHY])
    return True


def _chunks(control: str, runs: Any, chunks: int) -> list[int]:
    """Chunks from ``[[first, count], ...]``."""
    return [chunk for run in _runs(control, runs, chunks) for chunk in run]


def _runs(control: str, runs: Any, chunks: int) -> list[range]:
    """Runs from ``[[first, count], ...]``."""
    found: list[range] = []
    total = 0
    for run in runs if isinstance(runs, list) else [None]:
        if not (isinstance(run, list) and len(run) == 2 and all(type(n) is int for n in run)):
            raise RemoteProtocolError(peer=control, detail="news that are no runs of chunks")
        first, count = run
        if not 0 <= first <= first + count <= chunks:
            raise RemoteProtocolError(peer=control, detail="a chunk that the object does not have")
        total += count
        if total > MAX_REPEATS * chunks:
            raise RemoteProtocolError(peer=control, detail="the same chunks over and over")
        found.append(range(first, first + count))
    return found
