"""The client that is measured: upstream's class, out of its wheel or ours, in a process that does nothing else."""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from engine.bench.memory import Memory, pattern
from engine.bench.statistics import Latencies, Measurement
from engine.errors import BenchFailed, BytesDiffer, TransportUnavailable
from p2pstore.bench.store.cases import Case, Operation

MODULES = {"ours": "p2pstore.kv.client.compat", "mooncake": "mooncake.store"}

ENVIRONMENT = {"MC_FORCE_TCP": "1", "GLOG_minloglevel": "2"}
"""Of upstream's client. A variable that is set stays as it is."""

LOCAL_BUFFER = 16 << 20
"""Bytes in which upstream's client keeps what is no registered memory; nothing here is."""

MAX_BATCHES = 256
"""Batches of a thread that are there at a time: small values would take longer to put than to measure."""

MISSING = -704
"""What a removal of a key that is gone answers."""


def client(kind: str, master: str, segment: int) -> Any:
    """A store's client that gives ``segment`` bytes. Raises ``TransportUnavailable`` (no wheel), ``BenchFailed``."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        module = importlib.import_module(MODULES[kind])
    except ImportError as error:
        raise TransportUnavailable(transport=kind, detail=f"its wheel does not load: {error}") from None
    store = module.MooncakeDistributedStore()
    if code := store.setup("127.0.0.1", "P2PHANDSHAKE", segment, LOCAL_BUFFER, "tcp", "", master):
        raise BenchFailed(role=f"{kind} client", detail=f"setup returned {code}")
    return store


class Worker:
    """One client with ``length`` bytes of registered memory; ``room`` bytes of the pool are for its values."""

    def __init__(self, kind: str, master: str, length: int, segment: int, room: int) -> None:
        self._kind = kind
        self._store = client(kind, master, segment)
        self._room = room
        self._memory = Memory(length)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory.map))
        if code := self._store.register_buffer(self._address, length):
            raise BenchFailed(role=f"{kind} client", detail=f"it does not register {length} bytes: {code}")
        self._names = 0

    def measure(self, case: Case, seconds: float) -> Measurement:
        """Do the case for so long, each thread by itself. Raises ``BenchFailed`` for a call that fails."""
        self._names += 1
        found: list[Measurement] = []
        failed: list[BaseException] = []

        def work(thread: int) -> None:
            try:
                found.append(self._work(case, thread, seconds))
            except BaseException as error:  # noqa: BLE001 - the first one is raised below
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(case.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        latencies = Latencies()
        for each in found:
            latencies.merge(each.latencies)
        # Each thread has its own clock, which stands while it tidies up; together they did what their rates add up to.
        rate = sum(each.batches / each.seconds for each in found)
        batches = sum(each.batches for each in found)
        moved = 0 if case.operation is Operation.EXIST else batches * case.batch * case.size
        return Measurement(batches / rate, batches, moved, latencies)

    def _work(self, case: Case, thread: int, seconds: float) -> Measurement:
        calls = _Calls(self._kind, self._store, case, self._address + thread * case.size * case.batch)
        prefix = f"{self._kind}/{self._names}/{thread}"
        share = min(MAX_BATCHES, self._room // case.threads // (case.size * case.batch))
        if case.operation is Operation.PUT:
            return _puts(calls, prefix, max(1, share), seconds)
        return _reads(calls, prefix, max(1, share), seconds)

    def verify(self, case: Case, seed: int) -> None:
        """Put what is in memory, empty that, get it again and compare. Raises ``BytesDiffer``, ``BenchFailed``."""
        span = case.size * case.batch
        calls = _Calls(self._kind, self._store, case, self._address)
        keys = calls.names(f"{self._kind}/verify/{seed}", 0)
        expected = pattern(seed, 0, span)
        self._memory.map[:span] = expected
        try:
            calls.put(keys)
            self._memory.map[:span] = bytes(span)
            calls.get(keys)
            found = self._memory.map[:span]
            if found != expected:
                offset = next(at for at in range(span) if found[at] != expected[at])
                raise BytesDiffer(
                    engine=self._kind, operation="put and get", block_size=case.size, offset=offset, length=span
                )
        finally:
            calls.remove(keys)

    def close(self) -> None:
        """Leave the pool."""
        self._store.close()


class _Calls:
    """The calls of one thread, over its part of the memory."""

    def __init__(self, kind: str, store: Any, case: Case, address: int) -> None:
        self._kind = kind
        self._store = store
        self.case = case
        self._places = [address + number * case.size for number in range(case.batch)]
        self._sizes = [case.size] * case.batch

    def names(self, prefix: str, number: int) -> list[str]:
        return [f"{prefix}/{number}/{each}" for each in range(self.case.batch)]

    def put(self, keys: Sequence[str]) -> None:
        if len(keys) == 1:
            codes = [self._store.put_from(keys[0], self._places[0], self.case.size)]
        else:
            codes = self._store.batch_put_from(keys, self._places, self._sizes)
        if any(codes):
            raise self._failed("put", codes)

    def get(self, keys: Sequence[str]) -> None:
        if len(keys) == 1:
            sizes = [self._store.get_into(keys[0], self._places[0], self.case.size)]
        else:
            sizes = self._store.batch_get_into(keys, self._places, self._sizes)
        if sizes != self._sizes:
            raise self._failed("get", sizes)

    def exist(self, keys: Sequence[str]) -> None:
        found = [self._store.is_exist(keys[0])] if len(keys) == 1 else self._store.batch_is_exist(keys)
        if any(each != 1 for each in found):
            raise self._failed("exist", found)

    def remove(self, keys: Sequence[str]) -> None:
        for code in self._store.batch_remove(list(keys), True):
            if code not in {0, MISSING}:
                raise self._failed("remove", [code])

    def _failed(self, what: str, codes: Sequence[int]) -> BenchFailed:
        wrong = next((code for code in codes if code < 0), codes[0])
        return BenchFailed(role=f"{self._kind} client", detail=f"{what} returned {wrong}")


def _puts(calls: _Calls, prefix: str, room: int, seconds: float) -> Measurement:
    """Put new keys; what was put is removed now and then, which counts as no time."""
    latencies, spent, batches = Latencies(), 0, 0
    there: list[str] = []
    try:
        while spent < seconds * 1e9:
            keys = calls.names(prefix, batches)
            there += keys
            began = time.perf_counter_ns()
            calls.put(keys)
            took = time.perf_counter_ns() - began
            latencies.add((took,))
            spent += took
            batches += 1
            if not batches % room:
                calls.remove(there)
                there = []
    finally:
        if there:
            calls.remove(there)
    return Measurement(spent / 1e9, batches, 0, latencies)


def _reads(calls: _Calls, prefix: str, room: int, seconds: float) -> Measurement:
    """Get, or look up, keys that are there, one batch of them after the other."""
    batches = [calls.names(prefix, number) for number in range(room)]
    call = calls.get if calls.case.operation is Operation.GET else calls.exist
    latencies, spent, done = Latencies(), 0, 0
    try:
        for keys in batches:
            calls.put(keys)
        while spent < seconds * 1e9:
            keys = batches[done % room]
            began = time.perf_counter_ns()
            call(keys)
            took = time.perf_counter_ns() - began
            latencies.add((took,))
            spent += took
            done += 1
    finally:
        for keys in batches:
            calls.remove(keys)
    return Measurement(spent / 1e9, done, 0, latencies)
