"""What a planner is told and what it says: the events and actions of ``p2pstore.swarm.planner``, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from p2pstore.objects.bitmap import Bitmap


class FetchFault(Enum):
    """Why a fetch failed, as far as it matters here."""

    LOST = "lost"
    """The connection broke, stalled or was refused: try again later."""

    CORRUPT = "corrupt"
    """The bytes did not match their hash: never again."""

    SLOW = "slow"
    """It was cancelled: the peer may go on, with one request at a time until it delivers."""

    UNTRIED = "untried"
    """It was never sent, or lost with another's fault: not counted."""

    GONE = "gone"
    """The peer no longer serves the object: not before it is added anew."""


@dataclass(frozen=True)
class PeerAdded:
    """A peer is there. ``distance``: 0 this host, 1 this zone, 2 elsewhere; nearer ones are asked first.

    ``shared``: others get from it, too.
    """

    peer: str
    have: Bitmap
    distance: int = 2
    shared: bool = False


@dataclass(frozen=True)
class PeerHas:
    """A peer has more chunks."""

    peer: str
    chunks: Sequence[int]


@dataclass(frozen=True)
class PeerShared:
    """Others get from a peer, too, or no longer do."""

    peer: str
    shared: bool


@dataclass(frozen=True)
class Offered:
    """What a peer answers to ``Ask``: runs to fetch from it. ``over``: there is nothing that it did not offer."""

    peer: str
    runs: Sequence[range]
    over: bool


@dataclass(frozen=True)
class PeerGone:
    """A peer left, and nothing that it sent is being written any more; what was still on its way is lost."""

    peer: str


@dataclass(frozen=True)
class Closed:
    """A peer was told to stop, by whoever listens to it or to answer a ``Drop``: it takes part no more.

    ``writing`` are the runs whose bytes may still be written: each stays in flight until ``Released`` (or ``Fetched``,
    when it arrived whole after all). What else was asked of the peer is lost.
    """

    peer: str
    writing: Sequence[range] = ()


@dataclass(frozen=True)
class Released:
    """Nobody writes a run of a closed peer any more; its first ``kept`` chunks arrived, and matched."""

    peer: str
    run: range
    kept: int = 0


@dataclass(frozen=True)
class Fetched:
    """A run arrived, and every hash matched."""

    peer: str
    run: range
    now: float = 0.0


@dataclass(frozen=True)
class Failed:
    """A run did not arrive; the first ``kept`` chunks of it did, and matched."""

    peer: str
    run: range
    fault: FetchFault
    now: float
    kept: int = 0


@dataclass(frozen=True)
class Tick:
    """Time went on."""

    now: float


Event = PeerAdded | PeerHas | PeerShared | Offered | PeerGone | Closed | Released | Fetched | Failed | Tick


@dataclass(frozen=True)
class Fetch:
    """Ask a peer for a run of adjacent chunks."""

    peer: str
    run: range


@dataclass(frozen=True)
class Ask:
    """Ask a peer for so many offers, and answer with ``Offered``. ``done``: what was fetched from it, or is being."""

    peer: str
    count: int
    done: Sequence[range]


@dataclass(frozen=True)
class Cancel:
    """Wait for a run no longer, and answer with ``Failed`` and ``FetchFault.SLOW``, unless it just arrived."""

    peer: str
    run: range


@dataclass(frozen=True)
class Drop:
    """Do not talk to the peer any more, and answer with ``Closed``; ``banned`` when it sent wrong bytes."""

    peer: str
    banned: bool


Action = Fetch | Ask | Cancel | Drop
