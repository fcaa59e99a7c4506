"""What a pool counts, under upstream's names."""

from __future__ import annotations

from bisect import bisect_left

SIZE_BOUNDS = (4 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20)
"""Bytes: values are counted by the first of these that they do not exceed, or as larger."""


class Stats:
    """Counts since the start, and what is there now; plain integers, for whoever shows them."""

    def __init__(self) -> None:
        self.key_count = 0
        self.soft_pin_key_count = 0
        self.active_clients = 0
        self.put_start_alloc_failures = 0
        self.put_start_partial_allocations = 0
        self.attempted_evictions = 0
        self.successful_evictions = 0
        self.evicted_key_count = 0
        self.evicted_size_bytes = 0
        self.put_start_discard_cnt = 0
        self.put_start_release_cnt = 0
        self.put_start_discarded_staging_size = 0
        self.total_get_nums = 0
        self.valid_get_nums = 0
        self.mem_cache_hit_nums = 0
        self.mem_cache_hit_bytes = 0
        self.file_cache_hit_nums = 0
        self.file_cache_hit_bytes = 0
        self.exist_keys = 0
        self.exist_found = 0
        self.offload_queued = 0
        self.offload_done = 0
        self.promotion_in_flight = 0
        self.promotion_admitted = 0
        self.promotion_completed = 0
        self.promotion_completed_bytes = 0
        self.promotion_failed = 0
        self.promotion_expired = 0
        self.promotion_rejected_frequency = 0
        self.promotion_rejected_watermark = 0
        self.promotion_rejected_cap = 0
        self.allocated_bytes = 0
        self.total_capacity_bytes = 0
        self.value_bytes = 0
        self.value_sizes = [0] * (len(SIZE_BOUNDS) + 1)

    def stored(self, size: int, count: int = 1) -> None:
        """Values of one size became readable."""
        self.value_bytes += size * count
        self.value_sizes[bisect_left(SIZE_BOUNDS, size)] += count
