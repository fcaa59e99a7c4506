"""What a planner is told and what it says: the events and actions of ``p2pstore.swarm.planner``, as plain values.

Nobody changes one. Those of which each chunk takes several are not frozen, because a frozen one takes twice as long to
make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.gateway import ELSEWHERE, Claim
from p2pstore.swarm.granter import Grant

FEW_CONNECTIONS = 2
"""What is fetched from a peer comes over so many at a time where nothing else is said."""


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
    """A peer is there. ``distance``: see ``p2pstore.swarm.gateway``; nearer ones are asked first.

    ``grants``: it says when something may be fetched from it (see ``p2pstore.swarm.granter``). Of one that had
    everything when it came, that holds while it is ``shared``: while others get from it, too. ``connections``: what is
    fetched from it comes over so many at a time.
    """

    peer: str
    have: Bitmap
    distance: int = ELSEWHERE
    shared: bool = False
    grants: bool = False
    connections: int = FEW_CONNECTIONS


@dataclass(slots=True)
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
class PeerClaims:
    """A peer says who it takes for a gateway of its zone."""

    peer: str
    claim: Claim


@dataclass(slots=True)
class Granted:
    """A peer gives a grant, which has that peer for its key."""

    grant: Grant
    now: float = 0.0

    @property
    def peer(self) -> str:
        """Whose it is."""
        return self.grant.key


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


@dataclass(slots=True)
class Fetched:
    """A run arrived, and every hash matched."""

    peer: str
    run: range
    now: float = 0.0


@dataclass(slots=True)
class Ending:
    """All of a run but its ``lead`` has arrived."""

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


Event = (
    PeerAdded
    | PeerHas
    | PeerShared
    | PeerClaims
    | Granted
    | PeerGone
    | Closed
    | Released
    | Fetched
    | Ending
    | Failed
    | Tick
)


@dataclass(slots=True)
class Fetch:
    """Ask a peer for a run of adjacent chunks, and say ``Ending`` when ``lead`` of it is left, a part of 0 to 1."""

    peer: str
    run: range
    lead: float = 0.0


@dataclass(slots=True)
class Opened:
    """Tell a peer that there is room for a fetch beside the ``under_way`` that there are."""

    peer: str
    under_way: int


@dataclass(slots=True)
class Declined:
    """Tell a peer that its grant is not taken: there is no room (``full``), or it has nothing that is missing."""

    peer: str
    number: int
    under_way: int
    full: bool


@dataclass(slots=True)
class Done:
    """Tell a peer that what it granted has come, or nearly, or will not come. ``full``: there is no room for more."""

    peer: str
    number: int
    under_way: int
    full: bool


Word = Opened | Declined | Done
"""What is said to a peer that grants."""


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


@dataclass(frozen=True)
class Claims:
    """Tell those who get from this node who is a gateway of its zone."""

    claim: Claim


Action = Fetch | Opened | Declined | Done | Cancel | Drop | Claims
