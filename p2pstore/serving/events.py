"""What the policy is told and what it says: the events and decisions of ``p2pstore.serving.policy``, as plain values.

Times are seconds, lengths are tokens. A block is the key of one block of KV cache: equal keys mean equal prefixes up to
and including that block.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

Block = Hashable
RequestId = Hashable


class Kind(Enum):
    """What an instance is for."""

    PREFILL = "prefill"
    DECODE = "decode"

    STORE = "store"
    """It only holds blocks, which prefill instances can fetch."""


@dataclass(frozen=True, slots=True)
class InstanceUp:
    """An instance is there, or is back from draining."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class InstanceDraining:
    """An instance ends what it has, and takes nothing more."""

    name: str


@dataclass(frozen=True, slots=True)
class InstanceDown:
    """An instance is gone, with all that it was doing and all that it held."""

    name: str


@dataclass(frozen=True, slots=True)
class Arrive:
    """A request: its prompt's length and blocks. ``limit``: output tokens that it takes at most.

    ``tenant``: requests of one are expected to have outputs of like length.
    """

    request: RequestId
    length: int
    blocks: Sequence[Block] = ()
    limit: int | None = None
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class PrefillDone:
    """The prompt is computed, and the first token is known. Answered with ``Decode`` or ``Reject``.

    ``alone``: who computed it decodes it as well. Then there is no answer, and no decode instance has to do with it.
    """

    request: RequestId
    alone: bool = False


@dataclass(frozen=True, slots=True)
class DecodeStart:
    """The decode instance has taken the request into its batch."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class Token:
    """The client got so many more tokens. ``held``: it took those before so slowly that these had to wait."""

    request: RequestId
    count: int = 1
    held: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """An instance failed a request, and may be well otherwise. ``busy``: it said that it has too much to do.

    Answered with ``Place`` (elsewhere, where there is another), ``Reject`` or ``Lost``, and by ``Ejected`` where it was
    one too many.
    """

    request: RequestId
    instance: str
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """The request is over. ``complete``: it ended by itself; else its client left or it failed."""

    request: RequestId
    output: int = 0
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance holds these blocks from now on."""

    instance: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Removed:
    """An instance no longer holds these blocks."""

    instance: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went on."""


Event = (
    InstanceUp
    | InstanceDraining
    | InstanceDown
    | Arrive
    | PrefillDone
    | DecodeStart
    | Token
    | Failed
    | Finish
    | Stored
    | Removed
    | Tick
)


class Reason(Enum):
    """Why a request is refused."""

    TTFT = "ttft"
    """Its first token would come too late."""

    TBT = "tbt"
    """Its tokens would come too slowly."""

    NO_INSTANCE = "no-instance"
    """No prefill or no decode instance takes requests."""


@dataclass(frozen=True, slots=True)
class Place:
    """Compute the prompt on one instance and decode on another.

    ``reused``: tokens of the prompt that need not be computed. ``transfer_from``: who has their blocks, where the
    prefill instance must fetch some first. ``ttft`` and ``tbt`` are what was predicted, ``ttft`` from the arrival.
    """

    request: RequestId
    prefill: str
    decode: str
    transfer_from: str | None
    reused: int
    ttft: float
    tbt: float


@dataclass(frozen=True, slots=True)
class Decode:
    """Go on with decoding there: where the request was placed, or elsewhere when that instance takes no more."""

    request: RequestId
    decode: str
    tbt: float


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse a request. ``predicted``: the seconds that are over the objective; 0 where no instance is there."""

    request: RequestId
    reason: Reason
    retry_after: float
    predicted: float = 0.0


@dataclass(frozen=True, slots=True)
class Lost:
    """A request's instances died or failed it, and it cannot be begun again."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class Replicate:
    """Copy the blocks of a prefix that many ask for to one more instance."""

    blocks: Sequence[Block]
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Ejected:
    """An instance failed ``failures`` requests in a row: while there are others, it gets none for so many seconds."""

    instance: str
    seconds: float
    failures: int


Decision = Place | Decode | Reject | Lost | Replicate | Ejected
