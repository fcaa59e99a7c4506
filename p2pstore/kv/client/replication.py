"""How a value is to be kept, as ``Store`` is told it in words of its own."""

from __future__ import annotations

from collections.abc import Sequence

from engine import arguments
from engine.rpc.messages import ReplicateConfig, SoftPin


def replication(
    *,
    replicas: int = 1,
    soft_pin: float | bool | None = None,
    hard_pin: bool = False,
    prefer: Sequence[str] = (),
    same_node: bool = False,
    group: str | Sequence[str] | None = None,
    data_type: int = 0,
) -> ReplicateConfig:
    """How a value is to be kept. Raises ``UsageError``.

    ``replicas`` copies, as far as there are clients for them. A ``soft_pin`` keeps it while others can go, for so many
    seconds, or for the master's own time (True); False takes a pin away. A ``hard_pin`` keeps it until it is removed.
    ``prefer`` names segments, or ``same_node`` this host's. Values of one ``group`` go together.
    """
    ttl = None if soft_pin is None or isinstance(soft_pin, bool) else arguments.seconds(soft_pin, "the soft pin")
    action = SoftPin.PRESERVE if soft_pin is None else SoftPin.DISABLE if soft_pin is False else SoftPin.ENABLE
    return ReplicateConfig(
        replica_num=arguments.whole(replicas, "the number of replicas", 1),
        soft_pin_action=action,
        soft_pin_ttl_ms=None if ttl is None else int(ttl * 1000),
        with_hard_pin=bool(hard_pin),
        preferred_segments=arguments.texts(prefer, "the preferred segments"),
        prefer_alloc_in_same_node=bool(same_node),
        data_type=arguments.whole(data_type, "the data type"),
        group_ids=None
        if group is None
        else (group,)
        if isinstance(group, str)
        else arguments.texts(group, "the groups"),
    )
