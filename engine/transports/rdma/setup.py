"""What two processes tell each other to connect queue pairs, and for the right to read. Pure.

Connecting is Mooncake's handshake RPC of type 0. Fields that are ours begin with ``mooncake_cli``; upstream's peers
pass over them, and do not send them. Where both ends know them, the TCP connection of the handshake stays open as the
session of its queue pairs: on it the reader asks for grants (the keys of a range, which the owner registers then), and
when it ends, so do they.

Source of the fields: upstream's ``transfer_metadata.h`` (``HandShakeDesc``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import RemoteProtocolError
from engine.transports.rdma.addresses import gid_from_wire, gid_to_wire

MAX_QUEUE_PAIRS = 64
"""Queue pairs in one request."""

MAX_EXTENTS = 4096
"""Pieces of memory in one grant."""

SESSION = "mooncake_cli_session"
MTU = "mooncake_cli_mtu"
INITIATE = "mooncake_cli_initiate"
RESPOND = "mooncake_cli_respond"
REPLACES = "mooncake_cli_replaces"
GRANT = "mooncake_cli_grant"
RELEASE = "mooncake_cli_release"
KEY = "mooncake_cli_key"

_MAX_U32 = (1 << 32) - 1
_MAX_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Setup:
    """One side's half of a connection. ``local_nic`` and ``peer_nic`` are upstream's paths, ``SEGMENT@DEVICE``.

    ``mtu`` (bytes), ``initiate`` and ``respond`` (READs asked and answered at once) are 0 from upstream's peers.
    ``replaces`` are queue pairs of the other side that are broken; ``reject`` is the reason of one who does not want.
    """

    local_nic: str
    peer_nic: str
    numbers: tuple[int, ...] = ()
    gid: bytes = bytes(16)
    lid: int = 0
    mtu: int = 0
    initiate: int = 0
    respond: int = 0
    session: bool = False
    replaces: tuple[int, ...] = ()
    reject: str = ""

    @property
    def peer_device(self) -> str:
        """The device that is asked for."""
        return self.peer_nic.rpartition("@")[2]

    def to_json(self) -> dict[str, Any]:
        """Upstream's JSON object."""
        body: dict[str, Any] = {
            "local_nic_path": self.local_nic,
            "local_lid": self.lid,
            "local_gid": gid_to_wire(self.gid),
            "peer_nic_path": self.peer_nic,
            "qp_num": list(self.numbers),
            "reply_msg": self.reject,
        }
        if self.session:
            body |= {SESSION: True, MTU: self.mtu, INITIATE: self.initiate, RESPOND: self.respond}
        if self.replaces:
            body[REPLACES] = list(self.replaces)
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any], *, peer: str) -> Setup:
        """Read one. Raises ``RemoteProtocolError``."""
        reject = body.get("reply_msg", "")
        if not isinstance(reject, str):
            raise RemoteProtocolError(peer=peer, detail="'reply_msg' is no text")
        local, other = body.get("local_nic_path", ""), body.get("peer_nic_path", "")
        if not isinstance(local, str) or not isinstance(other, str):
            raise RemoteProtocolError(peer=peer, detail="a path of a network card that is no text")
        if reject:
            return cls(local, other, session=body.get(SESSION) is True, reject=reject)
        numbers, replaces = body.get("qp_num"), body.get(REPLACES, [])
        if not isinstance(numbers, list) or not 0 < len(numbers) <= MAX_QUEUE_PAIRS:
            raise RemoteProtocolError(peer=peer, detail="'qp_num' is no list of queue pairs")
        if not isinstance(replaces, list) or len(replaces) > MAX_QUEUE_PAIRS:
            raise RemoteProtocolError(peer=peer, detail=f"{REPLACES!r} is no list of queue pairs")
        gid = gid_from_wire(body.get("local_gid", ""))
        return cls(
            local,
            other,
            numbers=tuple(whole(number, peer, "qp_num", _MAX_U32) for number in numbers),
            gid=gid if gid is not None else bytes(16),
            lid=whole(body.get("local_lid", 0), peer, "local_lid", 65535),
            mtu=whole(body.get(MTU, 0), peer, MTU, 4096),
            initiate=whole(body.get(INITIATE, 0), peer, INITIATE, 65535),
            respond=whole(body.get(RESPOND, 0), peer, RESPOND, 65535),
            session=body.get(SESSION) is True,
            replaces=tuple(whole(number, peer, REPLACES, _MAX_U32) for number in replaces),
        )


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes that lie together at ``remote``; ``rkeys`` are their keys by the owner's device."""

    length: int
    remote: int
    rkeys: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """What a reader sends on a session: release grants, and give one for a range (none where ``length`` is 0)."""

    id: int
    address: int
    length: int
    release: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {GRANT: [self.id, self.address, self.length], RELEASE: list(self.release)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any], *, peer: str) -> GrantRequest:
        """Read one. Raises ``RemoteProtocolError``."""
        grant, release = body.get(GRANT), body.get(RELEASE, [])
        if not isinstance(grant, list) or len(grant) != 3 or not isinstance(release, list):
            raise RemoteProtocolError(peer=peer, detail="a request for a grant that makes no sense")
        number, address, length = (whole(each, peer, GRANT, _MAX_U64) for each in grant)
        return cls(number, address, length, tuple(whole(each, peer, RELEASE, _MAX_U64) for each in release))


def granted(number: int, extents: list[Extent]) -> dict[str, Any]:
    """The answer to ``GrantRequest``."""
    return {GRANT: number, "extents": [[each.length, each.remote, dict(each.rkeys)] for each in extents]}


def refused(number: int, reason: str) -> dict[str, Any]:
    """The other answer to ``GrantRequest``: the range is not there, or cannot be registered."""
    return {GRANT: number, "reply_msg": reason}


def read_grant(body: Mapping[str, Any], ask: GrantRequest, *, peer: str) -> tuple[list[Extent], str]:
    """The extents of a grant, or the reason why there is none. Raises ``RemoteProtocolError``."""
    if body.get(GRANT) != ask.id:
        raise RemoteProtocolError(peer=peer, detail="a grant that was not asked for")
    reason = body.get("reply_msg", "")
    if isinstance(reason, str) and reason:
        return [], reason
    entries = body.get("extents")
    if not isinstance(entries, list) or len(entries) > MAX_EXTENTS:
        raise RemoteProtocolError(peer=peer, detail="a grant that is no list of extents")
    extents = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[2], dict):
            raise RemoteProtocolError(peer=peer, detail="an extent that makes no sense")
        length = whole(entry[0], peer, "extent", ask.length)
        remote = whole(entry[1], peer, "extent", _MAX_U64)
        rkeys = {str(device): whole(key, peer, "rkey", _MAX_U32) for device, key in entry[2].items()}
        extents.append(Extent(length, remote, rkeys))
    if sum(each.length for each in extents) != ask.length or not all(each.length for each in extents):
        raise RemoteProtocolError(peer=peer, detail="a grant of another length than was asked for")
    return extents, ""


def whole(value: object, peer: str, name: str, most: int) -> int:
    """A number from 0 to ``most``. Raises ``RemoteProtocolError``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise RemoteProtocolError(peer=peer, detail=f"{name!r} is no number from 0 to {most}")
    return value
