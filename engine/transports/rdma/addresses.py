"""How a node tells others which RDMA devices it has, and which of ours reach which of theirs. Pure.

The text is ``DEVICE/LINK/LID/GID`` for each device, joined by commas, the ones to prefer first:
``mlx5_0/roce/0/::ffff:10.0.0.7``; LINK is ``roce`` or ``ib``, and the GID is written like an IPv6 address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.transports.rdma.verbs.interface import LinkLayer

MAX_DEVICES = 64
"""Devices of one peer that are read; more are passed over."""

MAX_RAILS = 16
"""Pairs of devices that one channel uses."""

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_LINKS = {"roce": LinkLayer.ETHERNET, "ib": LinkLayer.INFINIBAND}
_WORDS = {link: word for word, link in _LINKS.items()}
_MAPPED = bytes(10) + b"\xff\xff"
_LINK_LOCAL = b"\xfe\x80"


@dataclass(frozen=True, slots=True)
class RdmaAddress:
    """One device as others reach it. ``prefix`` is the length of its network's prefix in bits, 0 where unknown."""

    device: str
    link: LinkLayer
    lid: int
    gid: bytes
    prefix: int = 0

    def __str__(self) -> str:
        return f"{self.device}/{_WORDS[self.link]}/{self.lid}/{gid_text(self.gid)}"


def to_text(addresses: Iterable[RdmaAddress]) -> str:
    """What a node tells others."""
    return ",".join(map(str, addresses))


def from_text(text: str) -> tuple[RdmaAddress, ...]:
    """What a peer told; entries that make no sense are passed over: a newer version may have written them."""
    found = []
    for entry in text.split(",")[:MAX_DEVICES]:
        device, _, rest = entry.partition("/")
        link, _, rest = rest.partition("/")
        lid, _, gid = rest.partition("/")
        if not _NAME.fullmatch(device) or link not in _LINKS or not re.fullmatch(r"[0-9]{1,5}", lid):
            continue
        try:
            found.append(RdmaAddress(device, _LINKS[link], int(lid), ipaddress.IPv6Address(gid).packed))
        except ValueError:
            continue
    return tuple(found)


def reachable(one: RdmaAddress, other: RdmaAddress) -> bool:
    """Whether two devices may have a path: the same kind of link, and addresses of one kind or one subnet."""
    if one.link is not other.link:
        return False
    if one.link is LinkLayer.INFINIBAND:
        return one.gid[:8] == other.gid[:8]
    return _family(one.gid) == _family(other.gid)


def neighbours(one: RdmaAddress, other: RdmaAddress) -> bool:
    """Whether both are on the network of the first."""
    if not one.prefix or not reachable(one, other):
        return False
    shift = 128 - one.prefix
    return int.from_bytes(one.gid, "big") >> shift == int.from_bytes(other.gid, "big") >> shift


def pair_up(ours: Sequence[RdmaAddress], theirs: Sequence[RdmaAddress]) -> list[tuple[RdmaAddress, RdmaAddress]]:
    """The pairs to use, so that each device of both sides that can is in one; neighbours before what is routed."""
    near = {one: [other for other in theirs if neighbours(one, other)] for one in ours}
    far = {one: [other for other in theirs if reachable(one, other)] for one in ours}
    pairs: list[tuple[RdmaAddress, RdmaAddress]] = []
    uses = dict.fromkeys(theirs, 0)
    for one in ours:
        candidates = near[one] or far[one]
        if candidates:
            other = min(candidates, key=lambda each: uses[each])
            uses[other] += 1
            pairs.append((one, other))
    taken = {one: sum(1 for each, _ in pairs if each is one) for one in ours}
    for other in theirs:
        if uses[other]:
            continue
        candidates = [one for one in ours if other in near[one]]
        candidates = candidates or [one for one in ours if other in far[one] and not near[one]]
        if candidates:
            one = min(candidates, key=lambda each: taken[each])
            taken[one] += 1
            pairs.append((one, other))
    return pairs[:MAX_RAILS]


def why_apart(ours: Sequence[RdmaAddress], theirs: Sequence[RdmaAddress]) -> str:
    """Why no device of ours reaches one of theirs; empty where one may."""
    if not theirs:
        return "the peer offers no RDMA device"
    if not ours:
        return "this machine has no usable RDMA device"
    if any(reachable(one, other) for one in ours for other in theirs):
        return ""
    return f"no network has both {ours[0].device} ({ours[0]}) and the peer's {theirs[0].device} ({theirs[0]})"


def gid_text(gid: bytes) -> str:
    """A GID as people read it: ``::ffff:10.0.0.7``, the same from every version of Python."""
    if gid.startswith(_MAPPED):
        return f"::ffff:{ipaddress.IPv4Address(gid[12:])}"
    return str(ipaddress.IPv6Address(gid))


def gid_to_wire(gid: bytes) -> str:
    """Upstream's text: 16 bytes in hexadecimal with colons."""
    return ":".join(f"{byte:02x}" for byte in gid)


def gid_from_wire(text: object) -> bytes | None:
    """16 bytes, or None for what is no GID."""
    if not isinstance(text, str):
        return None
    parts = text.split(":")
    if len(parts) != 16 or not all(re.fullmatch(r"[0-9a-fA-F]{1,2}", part) for part in parts):
        return None
    return bytes(int(part, 16) for part in parts)


def _family(gid: bytes) -> str:
    if gid.startswith(_MAPPED):
        return "ipv4"
    return "link-local" if gid.startswith(_LINK_LOCAL) else "ipv6"
