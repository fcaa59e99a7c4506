"""How a value is to be kept: which of a put's wishes can be granted, and what they make of a value."""

from __future__ import annotations

from engine.rpc.codes import Code
from engine.rpc.messages import ReplicateConfig, SoftPin
from p2pstore.kv.pool.entries import Entry, More
from p2pstore.kv.pool.index import Index
from p2pstore.kv.pool.settings import PoolSettings

ENABLE = int(SoftPin.ENABLE)
"""To look a member of an enumeration up takes longer than to compare two numbers."""

MAX_REPLICAS = 1024
"""Of one value; as many as there are segments is what it gets at most."""


def refused(config: ReplicateConfig, settings: PoolSettings, keys: int | None = None) -> Code | None:
    """Why values cannot be kept so, if they cannot; ``keys`` is how many there are, where that is known."""
    if keys is not None and config.group_ids is not None and len(config.group_ids) != keys:
        return Code.BAD_PARAMS
    if not 0 < config.replica_num <= MAX_REPLICAS or config.nof_replica_num:
        return Code.BAD_PARAMS
    if config.dfs_replica_num:
        return Code.DFS_UNAVAILABLE if config.dfs_replica_num == 1 else Code.BAD_PARAMS
    if not config.soft_pin_action and config.soft_pin_ttl_ms is None:
        return None
    if config.soft_pin_action == ENABLE:
        too_long = config.soft_pin_ttl_ms is not None and not 0 <= config.soft_pin_ttl_ms <= settings.max_soft_pin_ms
        return Code.BAD_PARAMS if too_long else None
    known = config.soft_pin_action in {SoftPin.PRESERVE, SoftPin.DISABLE}
    return None if known and config.soft_pin_ttl_ms is None else Code.BAD_PARAMS


def nothing_special(config: ReplicateConfig) -> bool:
    """Whether new values are like nearly all are: neither pinned nor of a group or a type."""
    return (
        config.soft_pin_action != ENABLE
        and not config.with_hard_pin
        and not config.data_type
        and config.group_ids is None
    )


def anywhere(config: ReplicateConfig) -> bool:
    """Whether a value is to lie in one place, and it does not matter in which."""
    return config.replica_num == 1 and not (
        config.preferred_segment or config.preferred_segments or config.prefer_alloc_in_same_node
    )


def preferred_host(index: Index, client: bytes, config: ReplicateConfig) -> str:
    """The host that a value of this client is to lie on, if that matters and is known."""
    if config.replica_num != 1:
        return ""
    known = index.clients.get(client)
    return config.host_id or (known.host_id if known else "")


def configure(index: Index, entry: Entry, config: ReplicateConfig, number: int, old: Entry | None) -> None:
    """Give a value its pins, group and type, as key ``number`` of a call; what is not said stays as ``old`` had it."""
    settings = index.settings
    had = old.more if old is not None else None
    pin_ms = 0
    if config.soft_pin_action == ENABLE:
        pin_ms = settings.soft_pin_ms if config.soft_pin_ttl_ms is None else config.soft_pin_ttl_ms
    hard = config.with_hard_pin or (had is not None and had.hard)
    pinned = had.pinned_until if had is not None and config.soft_pin_action == SoftPin.PRESERVE else 0.0
    if pin_ms or hard or pinned or config.data_type:
        more = entry.more = More()
        more.hard = hard
        more.pin_s = pin_ms / 1000
        more.pinned_until = pinned
        more.data_type = config.data_type
    group = config.group_ids[number] if config.group_ids is not None else ""
    if had is not None and had.group is not None:
        group = had.group.name
    if group:
        index.in_group(entry, group)
