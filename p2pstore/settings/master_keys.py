"""What a master of the pooled store is told."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

from engine.net import addresses
from p2pstore.objects.units import parse_size
from p2pstore.settings.key import Key, as_boolean, as_path, as_share, as_text, one_of, whole

MASTER_PORT, METRICS_PORT = 50051, 9003
"""Where a master of the pooled store serves clients, and where it serves people; upstream's."""

ALLOCATIONS = ("random", "free_ratio_first", "local_first")
"""How a master chooses the memory for a value."""

MAX_DURATION = 7 * 86400
"""Seconds: what is meant to be longer is meant to be for ever, or a slip."""

MAX_MASTER_KEYS = 1_000_000_000
"""In the index of a master: more would not fit into any memory."""

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d|w|)")
_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def parse_duration(text: str) -> float:
    """Seconds from ``10``, ``10s``, ``500ms``, ``30m``, ``24h``, ``30d`` or ``2w``; else ``ValueError``."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time; write it like 10s, 500ms, 30m or 24h")
    return float(match[1]) * _UNITS[match[2]]


def _duration(low: float, high: float = MAX_DURATION) -> Callable[[str, Path], float]:
    def parse(text: str, _base: Path) -> float:
        seconds = parse_duration(text)
        if not low <= seconds <= high:
            raise ValueError(f"{text!r} is not between {low:g} s and {high:g} s")
        return seconds

    return parse


def networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Networks, and addresses as networks of one, joined by commas; else ``ValueError``."""
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            raise ValueError(f"{part!r} is neither an address nor a network like 10.0.0.0/24") from None
    if not found:
        raise ValueError("it is empty")
    return tuple(found)


def _networks(text: str, _base: Path) -> str:
    networks(text)
    return text


def tenant_quotas(text: str) -> dict[str, int]:
    """Bytes by tenant from ``NAME=SIZE``, joined by commas; else ``ValueError``."""
    found = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, size = part.rpartition("=")
        if not name or not equals:
            raise ValueError(f"{part!r} is no quota; write a tenant's like NAME=10GiB")
        found[name] = parse_size(size)
        if not found[name]:
            raise ValueError(f"{part!r} leaves the tenant nothing")
    if not found:
        raise ValueError("it is empty")
    return found


def _tenant_quotas(text: str, _base: Path) -> str:
    tenant_quotas(text)
    return text


def _of_master(default_port: int) -> Callable[[str, Path], str]:
    """Where a master listens: a place; with a port alone it is that of the loopback."""

    def parse(text: str, _base: Path) -> str:
        text = f"{addresses.LOOPBACK}{text}" if text.startswith(":") and text.count(":") == 1 else text
        return addresses.join(*addresses.parse_place(as_text(text, _base), default_port))

    return parse


MASTER_KEYS = (
    Key(
        "master_listen",
        _of_master(MASTER_PORT),
        "where 'store master' serves clients: ADDRESS, INTERFACE or NETWORK, and :PORT",
        f"{addresses.LOOPBACK}:{MASTER_PORT}",
    ),
    Key(
        "master_metrics",
        _of_master(METRICS_PORT),
        "where it serves metrics and 'mooncake store', likewise",
        f"{addresses.LOOPBACK}:{METRICS_PORT}",
    ),
    Key("master_insecure", as_boolean, "let it serve whoever reaches an open address", False, plain=True),
    Key("master_allow", _networks, "addresses and networks that it serves, joined by commas; unset: all that reach it"),
    Key("master_state", as_path, "directory in which it keeps its index; unset: a restart forgets"),
    Key("master_lease", _duration(0), "how long a value that was looked up is kept for its reader", 10.0, decimal=True),
    Key("master_soft_pin", _duration(0), "how long a soft pin holds, where a put does not say", 1800.0, decimal=True),
    Key("master_max_soft_pin", _duration(0), "the longest soft pin that a put may ask for", 86400.0, decimal=True),
    Key(
        "master_evict_soft_pinned", as_boolean, "evict soft-pinned values where nothing else is left", True, plain=True
    ),
    Key("master_watermark", as_share, "share of the memory in use above which values are evicted", 0.9, decimal=True),
    Key("master_eviction_ratio", as_share, "share of what is used that an eviction gives back", 0.05, decimal=True),
    Key("master_client_ttl", _duration(1), "how long a client may be silent before it is dead", 10.0, decimal=True),
    Key("master_put_discard", _duration(1), "after how long a put that did not end is given up", 30.0, decimal=True),
    Key("master_put_release", _duration(1), "after how long its memory is used again", 600.0, decimal=True),
    Key("master_allocation", one_of(*ALLOCATIONS), f"which memory is taken: {', '.join(ALLOCATIONS)}", ALLOCATIONS[0]),
    Key("master_tenants", as_boolean, "keep the keys of tenants apart", False, plain=True),
    Key("master_tenant_quotas", _tenant_quotas, "memory that tenants may have at most: NAME=SIZE, joined by commas"),
    Key("master_offload", as_boolean, "have clients that offer a disk write values to it", False, plain=True),
    Key(
        "master_offload_on_evict", as_boolean, "have that done when values are evicted, not at once", False, plain=True
    ),
    Key("master_promotion", as_boolean, "bring values that are read from a disk back to memory", False, plain=True),
    Key("master_max_keys", whole(1, MAX_MASTER_KEYS), "keys in its index at most", 10_000_000, plain=True),
)
"""What a master is told."""
