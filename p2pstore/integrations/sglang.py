"""SGLang's hierarchical cache (HiCache) on the pooled store: a dynamic storage backend.

::

    --enable-hierarchical-cache --hicache-storage-backend dynamic --hicache-storage-backend-extra-config
    '{"backend_name": "mooncake", "module_path": "p2pstore.integrations.sglang", "class_name": "MooncakeStorage",
      "interface_v1": 1, "master_server_address": "10.0.0.1:50051", "cache_prefix": "..."}'

A page is one value, whatever the layout of the host's memory; its key says whose page it is, of which pool, type, size
and layout, and which part of the model: what differs in one of these is not found. What SGLang's own backend for the
store does not do: a store that is slow, gone or wrong has nothing, and never raises in a thread that SGLang would not
start again; ``clear`` removes the pages of this model, and not all that is in the pool.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sglang.srt.mem_cache.hicache_storage import HiCacheStorage, PoolHitPolicy, PoolName, PoolTransferResult

from engine.memory.copying import address_of
from engine.memory.lent import byte_view
from p2pstore.errors import MooncakeError
from p2pstore.integrations.patient_store import PatientStore
from p2pstore.integrations.plugin_settings import CACHE_PREFIX, namespace, settings

ROOT = "sglang"
"""What all keys begin with; the model comes next."""

TAG = "extra_backend_tag"
"""SGLang's own word for what keeps pages apart."""

FLAT = "flat"
"""The pool of pages that SGLang hands over as tensors, in an order of its own."""

REPLICATED = ("indexer", "deepseek_v4", "swa", "draft_indexer")
"""Pools beside that of the KV cache of which all ranks of a model with latent attention have the same."""

LATENT = frozenset({"MLATokenToKVPoolHost", "DeepSeekV4PagedHostPool"})
"""SGLang's host pools of latent attention: all ranks have the same there, whatever the pool is called."""

GIB = 1 << 30

T = TypeVar("T")

log = logging.getLogger(__name__)


class MooncakeStorage(HiCacheStorage):  # type: ignore[misc] # SGLang has no types here
    """Pages of the cache in the pool. SGLang makes one for each rank, and calls it from threads of its own."""

    def __init__(self, storage_config: Any, kwargs: Any = None) -> None:  # noqa: ARG002 - SGLang's
        """Raises ``RuntimeError`` where the store does not take this process; one that is not there is waited for."""
        self._config = storage_config
        extra = storage_config.extra_config or {}
        said = settings(extra)
        prefix = namespace(str(said.pop(CACHE_PREFIX, "")), str(storage_config.model_name or ""))
        parts = (storage_config.model_name or "model", prefix or "any", str(extra.get(TAG) or "any"))
        self._begins = "/".join((ROOT, *map(_word, parts), ""))
        self.registered_pools: dict[str, Any] = {}
        self._rates: dict[str, list[float]] = {name: [] for name in RATES}
        self._store = PatientStore()
        if self._store.setup(said):
            raise RuntimeError(f"the pooled store was not joined: {self._store.last_error}")

    # What the host's memory is

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """The pool that the pages of the KV cache are in."""
        super().register_mem_pool_host(mem_pool_host)
        self.registered_pools[PoolName.KV] = mem_pool_host

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        """A pool beside it."""
        self.registered_pools[host_pool_name] = host_pool

    # Pages of the KV cache

    def batch_exists(self, keys: Sequence[str], extra_info: Any = None) -> int:  # noqa: ARG002 - SGLang's
        """How many pages are there, from the first on."""
        return _prefix(self._there(keys, PoolName.KV))

    def batch_get_v1(self, keys: Sequence[str], host_indices: Any, extra_info: Any = None) -> list[bool]:  # noqa: ARG002
        """Bring pages to the host's memory; which came. Nothing is written to the pages of those that did not."""
        if self._is_logical(PoolName.KV):
            return [True] * len(keys)
        return self._move(keys, PoolName.KV, host_indices, self._get, "prefetch")

    def batch_set_v1(self, keys: Sequence[str], host_indices: Any, extra_info: Any = None) -> list[bool]:  # noqa: ARG002
        """Put pages from the host's memory; which are there now."""
        if self._is_logical(PoolName.KV):
            return [True] * len(keys)
        return self._move(keys, PoolName.KV, host_indices, self._set, "backup")

    # Pages of several pools

    def batch_exists_v2(
        self,
        keys: Sequence[str],
        pool_transfers: Sequence[Any] | None = None,
        extra_info: Any = None,  # noqa: ARG002 - SGLang's
    ) -> Any:
        """How long a prefix can be used, and which shorter ones: by what each pool needs of it."""
        count = len(keys) if self._is_logical(PoolName.KV) else self.batch_exists(keys)
        hits: dict[Any, int] = {PoolName.KV: count} if count else {}
        usable = set(range(1, count + 1))
        for transfer in pool_transfers or ():
            if not usable:
                break
            there = self._there(keys[:count], transfer.name)
            if transfer.hit_policy == PoolHitPolicy.ALL_PAGES:
                found = set(range(1, _prefix(there) + 1))
            else:
                found = _windows(there, len(transfer.keys or ()) or 1)
            if found:
                hits[transfer.name] = max(found)
            usable &= found
        return PoolTransferResult(max(usable, default=0), hits, sorted(usable))

    def batch_get_v2(self, transfers: Sequence[Any], extra_info: Any = None) -> dict[Any, list[bool]]:  # noqa: ARG002
        """As ``batch_get_v1``, for each pool."""
        return {one.name: self._move(one.keys or (), one.name, one.host_indices, self._get, "") for one in transfers}

    def batch_set_v2(self, transfers: Sequence[Any], extra_info: Any = None) -> dict[Any, list[bool]]:  # noqa: ARG002
        """As ``batch_set_v1``, for each pool."""
        return {one.name: self._move(one.keys or (), one.name, one.host_indices, self._set, "") for one in transfers}

    # Pages as tensors: what SGLang calls without ``interface_v1``

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        """Fill a tensor with a page and return it, or None."""
        return self.batch_get([key], [target_location], [target_sizes])[0]

    def batch_get(self, keys: Sequence[str], target_locations: Any = None, target_sizes: Any = None) -> list[Any]:  # noqa: ARG002
        """Fill tensors with pages: those that came, None for the others."""
        tensors = target_locations or ()
        if len(tensors) != len(keys) or any(tensor is None for tensor in tensors):
            log.error("pages are read into tensors that are given, one each: %d for %d pages", len(tensors), len(keys))
            return [None] * len(keys)
        came = self._flat(keys, tensors, self._get, writable=True)
        return [tensor if good else None for tensor, good in zip(tensors, came, strict=True)]

    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool:
        """Put a page."""
        return self.batch_set([key], [value], [target_location], [target_sizes])

    def batch_set(
        self,
        keys: Sequence[str],
        values: Any = None,
        target_locations: Any = None,  # noqa: ARG002 - SGLang's
        target_sizes: Any = None,  # noqa: ARG002 - SGLang's
    ) -> bool:
        """Put pages; whether all are there now."""
        if len(values or ()) != len(keys) or any(value is None for value in values):
            log.error("pages are put as tensors, one each")
            return False
        return all(self._flat(keys, values, self._set, writable=False))

    def exists(self, key: str) -> bool:
        """Whether a page is there that was put as a tensor."""
        return self._there([key], FLAT) == [True]

    # The rest

    def clear(self) -> bool:
        """Remove the pages of this model and prefix, of all ranks and pools; whether that was done."""
        # By force: whoever was just looked up is leased, and whoever reads one meanwhile finds it wrong, and misses.
        removed = _quietly(lambda: self._store.remove_by_regex(f"^{re.escape(self._begins)}", True), -1)
        return removed >= 0

    def get_stats(self) -> Any:
        """Pages and GiB a second since the last time, as SGLang's collector takes them."""
        from sglang.srt.observability.metrics_collector import StorageMetrics  # noqa: PLC0415 - only where it is asked

        rates, self._rates = self._rates, {name: [] for name in RATES}
        return StorageMetrics(**rates)

    def close(self) -> None:
        """Leave the pool."""
        self._store.close()

    # Inside

    def _is_logical(self, pool: Any) -> bool:
        """Whether a pool has no memory, but only numbers for the pools beside it."""
        return hasattr(self.registered_pools.get(pool), "kv_buffer") and self.registered_pools[pool].kv_buffer is None

    def _names(self, keys: Sequence[str], pool: Any) -> list[str]:
        behind = self._behind(pool)
        return [f"{self._begins}{key}/{behind}" for key in keys]

    def _behind(self, pool: Any) -> str:
        """Whose page it is: the pool, its type, page and layout, and the part of the model that this rank has."""
        config, host = self._config, self.registered_pools.get(PoolName.KV if pool == FLAT else pool)
        kind = f"{_told(host, 'dtype')}.{_told(host, 'page_size')}.{_told(host, 'layout')}"
        ranks = [f"pp{config.pp_rank}of{config.pp_size}", f"cp{config.attn_cp_rank}of{config.attn_cp_size}"]
        if not config.is_mla_model or not _is_replicated(str(pool), host):
            ranks.append(f"tp{config.tp_rank}of{config.tp_size}")
        if getattr(config, "dcp_size", 1) > 1:
            ranks.append(f"dcp{config.dcp_rank}of{config.dcp_size}")
        return f"{pool}/{kind}/{'.'.join(ranks)}"

    def _there(self, keys: Sequence[str], pool: Any) -> list[bool]:
        nothing: list[int] = [0] * len(keys)
        codes = _quietly(lambda: self._store.batch_is_exist(self._names(keys, pool)), nothing) if keys else nothing
        return [code == 1 for code in codes]

    def _move(
        self,
        keys: Sequence[str],
        pool: Any,
        host_indices: Any,
        move: Callable[[Sequence[str], Sequence[Sequence[int]], Sequence[Sequence[int]]], list[bool]],
        what: str,
    ) -> list[bool]:
        """Move pages between the pool of values and a pool of the host's; which of them were."""

        def work() -> list[bool]:
            pointers, sizes = self.registered_pools[pool].get_page_buffer_meta(host_indices)
            each, rest = divmod(len(pointers), len(keys))
            if rest or not each or len(sizes) != len(pointers):
                raise ValueError(f"{len(pointers)} pieces of memory for {len(keys)} pages of the pool {pool}")
            places = range(0, len(pointers), each)
            began = time.monotonic()
            done = move(
                self._names(keys, pool),
                [pointers[at : at + each] for at in places],
                [sizes[at : at + each] for at in places],
            )
            if what and any(done):
                self._rates[f"{what}_pgs"].append(sum(done))
                moved = sum(sizes) * sum(done) / len(done)
                self._rates[f"{what}_bandwidth"].append(moved / GIB / max(time.monotonic() - began, 1e-6))
            return done

        return _quietly(work, [False] * len(keys)) if keys else []

    def _flat(
        self,
        keys: Sequence[str],
        tensors: Sequence[Any],
        move: Callable[[Sequence[str], Sequence[Sequence[int]], Sequence[Sequence[int]]], list[bool]],
        *,
        writable: bool,
    ) -> list[bool]:
        def work() -> list[bool]:
            pointers, sizes = [], []
            for tensor in tensors:
                with byte_view(tensor, "a page", writable=writable) as view:
                    pointers.append([address_of(view)])
                    sizes.append([len(view)])
            return move(self._names(keys, FLAT), pointers, sizes)

        return _quietly(work, [False] * len(keys)) if keys else []

    def _get(self, names: Sequence[str], pointers: Any, sizes: Any) -> list[bool]:
        return [code > 0 for code in self._store.batch_get_into_multi_buffers(names, pointers, sizes)]

    def _set(self, names: Sequence[str], pointers: Any, sizes: Any) -> list[bool]:
        return [code == 0 for code in self._store.batch_put_from_multi_buffers(names, pointers, sizes)]


RATES = ("prefetch_pgs", "backup_pgs", "prefetch_bandwidth", "backup_bandwidth")
"""What SGLang's collector wants to know."""


def _prefix(there: Sequence[bool]) -> int:
    return next((place for place, each in enumerate(there) if not each), len(there))


def _windows(there: Sequence[bool], length: int) -> set[int]:
    """Prefixes whose last ``length`` pages are there, of shorter ones all."""
    found: set[int] = set()
    run = 0
    for place, each in enumerate(there, 1):
        run = run + 1 if each else 0
        if run >= min(length, place):
            found.add(place)
    return found


def _is_replicated(pool: str, host: Any) -> bool:
    """Whether all ranks of a model with latent attention have the same pages in a pool. If in doubt, they have not."""
    if pool in {str(PoolName.KV), FLAT} or any(pool.startswith(name) for name in REPLICATED):
        return True
    return any(kind.__name__ in LATENT for kind in type(host).__mro__)


def _told(host: Any, name: str) -> str:
    return _word(str(getattr(host, name, "none")).removeprefix("torch."))


def _word(text: str) -> str:
    """Text as a part of a key: what parts keys is not in it."""
    return text.replace("/", "-")


def _quietly(work: Callable[[], T], otherwise: T) -> T:
    """What work returns: an error of any kind is logged, and is no more than nothing found."""
    try:
        return work()
    except MooncakeError as error:
        log.warning("the pooled store: %s", error)
    except Exception:
        log.exception("the pooled store: this was not foreseen, and counts as nothing found")
    return otherwise
