"""Upstream's store class for engines that serve: the store may not hold them up, fail them, or write to their cache.

An engine asks, loads and saves in threads that requests wait for. So lookups are answered in ``LOOKUP_SECONDS``, loads
in that and what their bytes take at ``FLOOR``, and saves in ``SAVE_SECONDS``: what is not there by then is a miss, as
is what is wrong. Bytes go through memory of our own (``p2pstore.integrations.staging``). A master that is not there at
the start is looked for in the background, as one that is gone later is.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from engine.net.threads import Threads
from engine.rpc.codes import Code
from p2pstore.errors import MooncakeError, UsageError
from p2pstore.integrations.patience import Patience
from p2pstore.integrations.staging import Window, Windows, runs
from p2pstore.kv.client.compat import MooncakeDistributedStore
from p2pstore.kv.client.compat_types import ReplicateConfig
from p2pstore.kv.client.reading import Part, whole

LOOKUP_SECONDS = 0.15
"""For the answer to a lookup: with what the engine adds a miss is known in 200 ms."""

FLOOR = 100 << 20
"""Bytes a second below which a load is given up. Far below it computing is quicker: FAST'25 has 6 GB/s for 70B."""

SAVE_SECONDS = 5.0
"""For a save: its blocks cannot be used for other requests meanwhile."""

JOIN_EVERY = 1.0
"""Seconds between two attempts to find a master that was not there."""

PATIENCE = "MOONCAKE_PATIENCE"
"""The variable that replaces ``LOOKUP_SECONDS``."""

LATE = int(Code.RPC_TIMEOUT)
"""What is said of keys for which there was no time."""

log = logging.getLogger(__name__)


class PatientStore(MooncakeDistributedStore):
    """A client as upstream's, whose calls come back in time."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = _patience()
        self._lookups = Patience("lookups")
        self._loads = Patience("loads")
        self._saves = Patience("saves")
        self._windows = Windows()
        self._threads = Threads()
        self._ended = threading.Event()
        self._joining = threading.Lock()
        self._joiner: threading.Thread | None = None

    # Life

    def setup(self, *args: Any, **kwargs: Any) -> int:
        """Join a pool, now or, where there is no master yet, once there is one: 0 in both cases, or another code."""
        code = super().setup(*args, **kwargs)
        if code != int(Code.RPC_FAILED):
            return code
        self._ended = threading.Event()
        log.warning("the store is not there yet: nothing is found in it until it is, and nothing kept")
        self._joiner = self._threads.serve("join the store", partial(self._join, self._ended, args, kwargs))
        return 0 if self._joiner is not None else code

    def close(self) -> int:
        """Leave the pool."""
        with self._joining:
            self._ended.set()
        return super().close()

    def _join(self, ended: threading.Event, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Try once, with a store of its own: by then this one may be closed, or set up otherwise."""
        if ended.wait(JOIN_EVERY):
            return False
        made = MooncakeDistributedStore()
        code = made.setup(*args, **kwargs)
        with self._joining:
            if not ended.is_set():
                self._take_over(made)
        made.close()
        if code == 0 and not ended.is_set():
            log.warning("the store is there now")
        return code == int(Code.RPC_FAILED)

    # What engines call

    def batch_is_exist(self, keys: Sequence[str]) -> list[int]:
        """As upstream's; ``LATE`` for all where no answer comes in time."""
        found = self._lookups.call(partial(super().batch_is_exist, keys), self.seconds)
        return [LATE] * len(keys) if found is None else found

    def batch_get_into_multi_buffers(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Sequence[int]],
        all_sizes: Sequence[Sequence[int]],
        prefer_alloc_in_same_node: bool = False,  # noqa: ARG002, FBT001 - upstream's
    ) -> list[int]:
        """Bring values to memory that is exactly of their size; the size of each, or a code and nothing touched."""
        if bad := self._uneven(keys, all_buffer_ptrs, all_sizes):
            return bad
        codes: list[int] = []
        for places in runs([sum(each) for each in all_sizes]):
            some = slice(places.start, places.stop)
            codes += self._load(keys[some], all_buffer_ptrs[some], all_sizes[some])
        return codes

    def batch_get_into(self, keys: Sequence[str], buffer_ptrs: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """Bring values to memory of at least their size: LMCache asks so for chunks that may not be full."""
        pointers, lengths = [[each] for each in buffer_ptrs], [[each] for each in sizes]
        if bad := self._uneven(keys, pointers, lengths):
            return bad
        codes: list[int] = []
        for places in runs(sizes):
            some = slice(places.start, places.stop)
            codes += self._load(keys[some], pointers[some], lengths[some], exactly=False)
        return codes

    def batch_put_from_multi_buffers(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Sequence[int]],
        all_sizes: Sequence[Sequence[int]],
        config: ReplicateConfig | None = None,
    ) -> list[int]:
        """Put values as they are at this moment; a code for each."""
        if bad := self._uneven(keys, all_buffer_ptrs, all_sizes):
            return bad
        codes: list[int] = []
        for places in runs([sum(each) for each in all_sizes]):
            some = slice(places.start, places.stop)
            codes += self._save(keys[some], all_buffer_ptrs[some], all_sizes[some], _part(config, some))
        return codes

    # Inside

    def _uneven(
        self, keys: Sequence[str], pointers: Sequence[Sequence[int]], sizes: Sequence[Sequence[int]]
    ) -> list[int]:
        if not len(keys) == len(pointers) == len(sizes):
            return [self._bad("keys, addresses and sizes differ in number")] * len(keys)
        if any(len(one) != len(other) for one, other in zip(pointers, sizes, strict=True)):
            return [self._bad("addresses and sizes of a key differ in number")] * len(keys)
        return []

    def _load(
        self,
        keys: Sequence[str],
        pointers: Sequence[Sequence[int]],
        sizes: Sequence[Sequence[int]],
        *,
        exactly: bool = True,
    ) -> list[int]:
        """Values of less than their memory's size are wrong, or, not ``exactly``, in one piece at its beginning."""
        lengths = [sum(each) for each in sizes]
        starts = _starts(lengths)
        window = None if self._loads.waiting else self._windows.get(sum(lengths))
        if window is None:
            return [LATE] * len(keys)

        def room(place: int, size: int) -> list[Part] | MooncakeError:
            if size > lengths[place] or (exactly and size != lengths[place]):
                detail = f"the value of {keys[place]!r} has {size} bytes, and its memory {lengths[place]}"
                return UsageError(detail=detail)
            return whole(window.view[starts[place] : starts[place] + size])

        work = partial(self._read, keys, room)
        codes = self._staged(self._loads, work, window, self.seconds + sum(lengths) / FLOOR)
        if codes is None:
            return [LATE] * len(keys)
        with self._called() as failed:
            for place, code in enumerate(codes):
                if code >= 0:
                    window.give(starts[place], pointers[place], sizes[place] if exactly else [code])
        self._windows.put(window)
        return codes if not failed.code else [failed.code] * len(keys)

    def _save(
        self,
        keys: Sequence[str],
        pointers: Sequence[Sequence[int]],
        sizes: Sequence[Sequence[int]],
        config: ReplicateConfig | None,
    ) -> list[int]:
        lengths = [sum(each) for each in sizes]
        starts = _starts(lengths)
        window = None if self._saves.waiting else self._windows.get(sum(lengths))
        if window is None:
            return [LATE] * len(keys)
        with self._called() as failed:
            for place, start in enumerate(starts):
                window.take(start, pointers[place], sizes[place])
        if failed.code:
            self._windows.put(window)
            return [failed.code] * len(keys)
        staged = [[window.address + start] for start in starts]
        put = super().batch_put_from_multi_buffers
        work = partial(put, keys, staged, [[each] for each in lengths], config)
        codes = self._staged(self._saves, work, window, SAVE_SECONDS)
        if codes is None:
            return [LATE] * len(keys)
        self._windows.put(window)
        return codes

    def _staged(
        self, patience: Patience, work: Callable[[], list[int]], window: Window, seconds: float
    ) -> list[int] | None:
        """Codes, and the window is the caller's again; or None, and it is the late call's until that ends."""
        try:
            return patience.call(work, seconds, lambda: self._windows.put(window))
        except BaseException:
            self._windows.put(window)
            raise


def _starts(lengths: Sequence[int]) -> list[int]:
    starts, at = [], 0
    for each in lengths:
        starts.append(at)
        at += each
    return starts


def _part(config: ReplicateConfig | None, some: slice) -> ReplicateConfig | None:
    """A configuration for some of the keys. It is copied: the caller may change its own for the next call."""
    if config is None:
        return None
    made = copy.copy(config)
    if made.group_ids is not None:
        made.group_ids = list(made.group_ids)[some]
    return made


def _patience() -> float:
    text = os.environ.get(PATIENCE, "")
    try:
        seconds = float(text or LOOKUP_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        log.warning("%s=%r is no number of seconds; %g is taken", PATIENCE, text, LOOKUP_SECONDS)
        return LOOKUP_SECONDS
    return seconds
