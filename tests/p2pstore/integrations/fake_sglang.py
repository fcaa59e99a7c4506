"""What the backend uses of SGLang 0.5.23, made small: its classes without torch. ``tests/serving`` has the real ones."""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class PoolName(str, Enum):
    KV = "kv"
    MAMBA = "mamba"
    INDEXER = "indexer"
    DRAFT = "draft"

    def __str__(self) -> str:
        return self.value


class PoolHitPolicy(str, Enum):
    ALL_PAGES = "all_pages"
    TRAILING_PAGES = "trailing_pages"


@dataclass
class PoolTransfer:
    name: PoolName
    host_indices: Any = None
    keys: list[str] | None = None
    hit_policy: PoolHitPolicy = PoolHitPolicy.ALL_PAGES


@dataclass
class PoolTransferResult:
    kv_hit_pages: int
    extra_pool_hit_pages: dict[str, int]
    restorable_prefix_pages: list[int] | None = None


class HiCacheStorage:
    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        self.mem_pool_host = mem_pool_host


@dataclass
class StorageMetrics:
    prefetch_pgs: list[int] = field(default_factory=list)
    backup_pgs: list[int] = field(default_factory=list)
    prefetch_bandwidth: list[float] = field(default_factory=list)
    backup_bandwidth: list[float] = field(default_factory=list)


@dataclass
class StorageConfig:
    extra_config: dict[str, Any] | None = None
    model_name: str | None = "a/model"
    tp_rank: int = 0
    tp_size: int = 1
    pp_rank: int = 0
    pp_size: int = 1
    attn_cp_rank: int = 0
    attn_cp_size: int = 1
    is_mla_model: bool = False
    dcp_rank: int = 0
    dcp_size: int = 1


class HostPool:
    """Pages of the host's memory, each in ``pieces``: keys and values, or more where the layout is by layer."""

    layout = "page_first"
    dtype = "torch.bfloat16"
    page_size = 4

    def __init__(self, pages: int = 16, pieces: int = 2, piece: int = 96) -> None:
        self.kv_buffer: Any = (ctypes.c_ubyte * (pages * pieces * piece))()
        self.pieces, self.piece = pieces, piece

    def get_page_buffer_meta(self, indices: Sequence[int]) -> tuple[list[int], list[int]]:
        start, step = ctypes.addressof(self.kv_buffer), self.pieces * self.piece
        pages = [index // self.page_size for index in indices[:: self.page_size]]
        pointers = [start + page * step + at * self.piece for page in pages for at in range(self.pieces)]
        return pointers, [self.piece] * len(pointers)

    def page(self, number: int) -> bytes:
        step = self.pieces * self.piece
        return bytes(self.kv_buffer[number * step : (number + 1) * step])

    def fill(self, number: int, seed: int) -> None:
        step = self.pieces * self.piece
        self.kv_buffer[number * step : (number + 1) * step] = bytes((seed * 7 + at) % 251 for at in range(step))


class MLATokenToKVPoolHost(HostPool):
    pass


def indices(*pages: int) -> list[int]:
    """The tokens of pages."""
    return [page * HostPool.page_size + at for page in pages for at in range(HostPool.page_size)]


@contextmanager
def installed() -> Iterator[None]:
    """``import sglang`` finds this, as far as it goes, and our backend is imported anew."""
    names = ("sglang", "sglang.srt", "sglang.srt.mem_cache", "sglang.srt.mem_cache.hicache_storage")
    more = ("sglang.srt.observability", "sglang.srt.observability.metrics_collector")
    modules = {name: types.ModuleType(name) for name in (*names, *more)}
    for each in (HiCacheStorage, PoolHitPolicy, PoolName, PoolTransferResult):
        setattr(modules[names[-1]], each.__name__, each)
    modules[more[-1]].StorageMetrics = StorageMetrics  # type: ignore[attr-defined]
    ours = "p2pstore.integrations.sglang"
    before = {name: sys.modules.pop(name, None) for name in (*modules, ours)}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
