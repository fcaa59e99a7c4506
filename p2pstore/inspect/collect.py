"""Removing stale records: ``mooncake etcd gc``.

Nothing is removed for its prefix. Each record is removed in a transaction that holds only while it, and every record
that the verdict rests on, is what it was when it was judged; ours, only while no replica has come. A record with a
lease is left to the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.etcd.credentials import EtcdCredentials
from p2pstore.inspect import ours, probing, upstream
from p2pstore.inspect.reader import DEFAULT_PREFIXES, Reading, judge, read
from p2pstore.inspect.staleness import RecordState, Verdict
from p2pstore.inspect.values import printable
from p2pstore.metadata.store import MAX_OPERATIONS, Condition, Delete, MetadataStore
from p2pstore.metadata.urls import open_store

ATTEMPTS = 2
"""How often an endpoint that does not answer is asked before its records are called stale."""

_ORDER = ("checkpoint", "segment", "rpc_meta", "master_view", "version", "object")
"""Families in the order of removal: what rests on a record goes before it, or the evidence would be gone."""


@dataclass(frozen=True)
class Removal:
    """Records that go in one transaction, if the conditions hold."""

    keys: tuple[str, ...]
    conditions: tuple[Condition, ...]


def plan(reading: Reading, verdicts: Mapping[str, Verdict], *, unreachable: bool) -> list[Removal]:
    """The transactions that remove what is stale; pure. ``unreachable``: what is only out of reach, too."""
    wanted = {RecordState.STALE, RecordState.UNREACHABLE} if unreachable else {RecordState.STALE}
    stale = {
        key: verdict for key, verdict in verdicts.items() if verdict.state in wanted and not reading.asked[key].lease
    }
    removals: list[Removal] = []
    taken: set[str] = set()
    for key in sorted(stale, key=lambda key: (_ORDER.index(family_of(reading, key)), key)):
        if key in taken:
            continue
        keys, conditions = [key], dict.fromkeys(stale[key].evidence)
        # The records of one endpoint go together: each is evidence for the others.
        for other in _kin(reading, key):
            joined = {**conditions, **dict.fromkeys(stale[other].evidence)} if other in stale else conditions
            if other in stale and other not in taken and max(len(joined), len(keys) + 1) <= MAX_OPERATIONS:
                keys.append(other)
                conditions = joined
        taken.update(keys)
        removals.append(Removal(tuple(keys), tuple(conditions)))
    return removals


def _kin(reading: Reading, key: str) -> list[str]:
    """A segment's ``rpc_meta`` records and the other segments that rest on them."""
    rpcs = reading.deployment.rests_on(key)
    return [other for rpc in rpcs for other in (rpc, *reading.deployment.together(rpc)) if other != key]


def family_of(reading: Reading, key: str) -> str:
    """The family of a key that was asked for and judged."""
    family = ours.family_of(key)
    known = None if family else upstream.parts(key, reading.asked[key].value)
    return known[0] if known else family


async def collect(
    store: MetadataStore,
    prefixes: str | Sequence[str] = DEFAULT_PREFIXES,
    *,
    act: bool = False,
    unreachable: bool = False,
) -> dict[str, Any]:
    """Find what is stale under the prefixes, and with ``act`` remove it.

    Returns JSON types: ``url``, ``dry_run``, ``alive`` (a count), and lists of ``{"key", "family", "why"}``: ``stale``
    (what a dry run would remove), ``removed``, ``changed`` (stale when judged, and changed since), ``unreachable``,
    ``unknown``, ``leased`` (left to their leases); ``truncated``. Raises ``MetadataUnavailable``, ``MetadataRefused``.
    """
    reading = await read(store, prefixes)
    endpoints = reading.deployment.endpoints(reading.asked)
    answers = await probing.probe(endpoints, loopback=probing.on_loopback(store.url), attempts=ATTEMPTS)
    verdicts = await judge(store, reading, answers)
    removals = plan(reading, verdicts, unreachable=unreachable)
    planned = {key for removal in removals for key in removal.keys}
    removed: list[str] = []
    changed: list[str] = []
    for removal in removals if act else ():
        gone = await store.commit([Delete(key) for key in removal.keys], removal.conditions) is not None
        (removed if gone else changed).extend(removal.keys)

    def rows(keys: Sequence[str]) -> list[dict[str, str]]:
        return [
            {"key": printable(key), "family": family_of(reading, key), "why": verdicts[key].why} for key in sorted(keys)
        ]

    def left(state: RecordState, *, leased: bool) -> list[str]:
        return [
            key
            for key, verdict in verdicts.items()
            if verdict.state is state and key not in planned and bool(reading.asked[key].lease) is leased
        ]

    return {
        "url": store.url,
        "dry_run": not act,
        "alive": sum(verdict.state is RecordState.ALIVE for verdict in verdicts.values()),
        "stale": [] if act else rows(sorted(planned)),
        "removed": rows(removed),
        "changed": rows(changed),
        "unreachable": rows(left(RecordState.UNREACHABLE, leased=False)),
        "unknown": rows([key for key, verdict in verdicts.items() if verdict.state is RecordState.UNKNOWN]),
        "leased": rows([*left(RecordState.STALE, leased=True), *left(RecordState.UNREACHABLE, leased=True)]),
        "truncated": reading.truncated,
    }


def collect_url(
    url: str,
    credentials: EtcdCredentials | None = None,
    prefix: str | None = None,
    *,
    act: bool = False,
    unreachable: bool = False,
) -> dict[str, Any]:
    """As ``collect``, for code that runs no event loop. Raises ``BadConfig``, too."""

    async def run() -> dict[str, Any]:
        store = open_store(url, credentials)
        try:
            asked = DEFAULT_PREFIXES if prefix is None else prefix
            return await collect(store, asked, act=act, unreachable=unreachable)
        finally:
            await store.close()

    return asyncio.run(run())
