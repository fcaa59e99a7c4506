"""What a pool is told, with upstream's defaults, each limit with its unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEASE_MS = 10_000
"""How long a value is kept for whoever asked about it: it is neither evicted nor removed meanwhile."""

SOFT_PIN_MS = 30 * 60 * 1000
"""How long a soft pin holds where the put names no time."""

MAX_SOFT_PIN_MS = 24 * 60 * 60 * 1000
"""The longest soft pin that a put may ask for."""

HIGH_WATERMARK = 0.90
"""The share of the pool's memory above which values are evicted."""

EVICTION_RATIO = 0.05
"""The share of what is used that an eviction gives back."""

CLIENT_TTL_S = 10.0
"""A client that has not pinged for so long is absent: its values cannot be read until it comes back."""

START_TTL_S = 60.0
"""The same for a client that never pinged yet: many engines on one machine start slowly."""

HINTED_TTL_S = 3.0
"""The same for a client whose connection is gone, or from which somebody could not read; pings come each second."""

KEEP_ABSENT_S = 600.0
"""How long the index of an absent client is kept aside, in case it comes back with its memory whole."""

PUT_DISCARD_S = 30.0
"""A write that did not end after so long gives its key up to the next one."""

PUT_RELEASE_S = 600.0
"""The memory of such a write is used again only then: its writer may still be writing to it."""

MAX_KEYS = 10_000_000
"""Keys of all tenants together."""

MAX_INDEX_BYTES = 8 << 30
"""Memory of the index, as estimated from the lengths of the keys."""

OFFLOAD_QUEUE = 50_000
"""Values that wait to be written to one client's disk."""

PROMOTION_QUEUE = 50_000
"""Values that wait to be read back from disks."""

PROMOTION_HITS = 2
"""Reads from a disk after which a value is brought back to memory."""

PROMOTIONS_A_HEARTBEAT = 1
"""Values that a client brings back at a time: it does so between two pings."""

MAX_TASKS = 10_000
"""Copies and moves that wait, as many that are under way, and as many finished ones that are remembered."""

TASK_TIMEOUT_S = 300.0
"""A copy or move that nobody fetches, or ends, fails after so long."""

TASK_RETRIES = 10
"""How often a client tries a copy or move."""

ALLOCATIONS = ("random", "free_ratio_first", "local_first")
"""How a segment is chosen: any; the one with the largest free share; one of the writer's host."""


@dataclass(frozen=True)
class PoolSettings:
    """How a pool behaves. Times that go over the wire are in milliseconds, the others in seconds."""

    lease_ms: int = LEASE_MS
    soft_pin_ms: int = SOFT_PIN_MS
    max_soft_pin_ms: int = MAX_SOFT_PIN_MS
    evict_soft_pinned: bool = True
    high_watermark: float = HIGH_WATERMARK
    eviction_ratio: float = EVICTION_RATIO
    client_ttl: float = CLIENT_TTL_S
    start_ttl: float = START_TTL_S
    hinted_ttl: float = HINTED_TTL_S
    keep_absent: float = KEEP_ABSENT_S
    put_discard: float = PUT_DISCARD_S
    put_release: float = PUT_RELEASE_S
    allocation: str = "random"
    tenants: bool = False
    """Whether tenants are kept apart; if not, each is the default one."""
    tenant_quotas: Mapping[str, int] = field(default_factory=dict)
    """Bytes of memory that a tenant may use; who is not named may use all."""
    max_keys: int = MAX_KEYS
    max_index_bytes: int = MAX_INDEX_BYTES
    offload: bool = False
    """Whether values are written to the disks of clients that offer one."""
    offload_on_evict: bool = False
    """Whether that is done when they are evicted, not as soon as they are put."""
    offload_queue: int = OFFLOAD_QUEUE
    promotion_on_hit: bool = False
    promotion_hits: int = PROMOTION_HITS
    promotion_queue: int = PROMOTION_QUEUE
    epoch: float = 0.0
    """What is to be added to the pool's clock for seconds since 1970."""
    view: int = 0
    """The number that pings are answered with."""
    log: bool = False
    """Whether changes are put down for a journal."""
