"""From a metadata store to the tree of what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.etcd.credentials import EtcdCredentials
from p2pstore.cluster.records import REPLICAS, replicas_prefix
from p2pstore.inspect import ours, probing, upstream
from p2pstore.inspect.staleness import Deployment, ProbeAnswer, ProbeTarget, Verdict
from p2pstore.inspect.tree import Tree, entry_of
from p2pstore.inspect.values import Malformed, preview
from p2pstore.metadata.store import KeyValue, MetadataStore
from p2pstore.metadata.urls import open_store

DEFAULT_PREFIXES = ("mooncake/", "mooncake-store/", "/oplog/")
"""Where Mooncake's deployments keep their keys."""

MAX_KEYS = 100_000
"""Keys that one inspection reads."""

PAGE = 1000
"""Keys of one read."""

LEASES_AT_ONCE = 16
"""Questions after a lease's time that are under way together."""


MAX_PROBES = 256
"""Endpoints that an inspection asks whether they live; with more it asks none, and says so."""


@dataclass(frozen=True)
class Reading:
    """What was read: the keys that were asked for, and all that is known in order to judge them.

    ``held`` are the manifests of which any node has a replica; None where not all keys were read.
    """

    asked: dict[str, KeyValue]
    deployment: Deployment
    held: frozenset[str] | None
    truncated: bool


def arrange(
    items: Iterable[KeyValue], lease_left: Mapping[int, int], verdicts: Mapping[str, Verdict] | None = None
) -> Tree:
    """The tree of some keys; pure, and total: a value that cannot be decoded is marked, never raised."""
    tree = Tree()
    verdicts = verdicts or {}
    places = {
        "node": tree.nodes,
        "object": tree.objects,
        "version": tree.versions,
        "tag": tree.tags,
        "replica": tree.replicas,
    }
    for item in items:
        left = lease_left.get(item.lease) if item.lease else None
        family = ours.family_of(item.key)
        matched = None if family else upstream.match(item.key, item.value)
        fields: dict[str, Any] = {}
        malformed = ""
        try:
            if family:
                fields = ours.identity(item.key)
                fields = ours.decode(family, item.key, item.value)
            elif matched is not None:
                fields = matched.fields
                fields = {**upstream.decode(matched.family, item.value), **matched.fields}
        except Malformed as error:
            malformed = str(error)
        if family:
            places[family].append(entry_of(item, family, fields, malformed, left, verdicts.get(item.key)))
        elif matched is not None:
            entry = entry_of(item, matched.family, fields, malformed, left, verdicts.get(item.key))
            tree.upstream.append(entry)
        else:
            tree.unknown.append(entry_of(item, "unknown", {"preview": preview(item.value)}, "", left))
    return tree


async def _read(store: MetadataStore, prefix: str, room: int) -> tuple[list[KeyValue], bool]:
    items: list[KeyValue] = []
    while True:
        page = await store.scan(prefix, limit=min(PAGE, room - len(items)), after=items[-1].key if items else "")
        items += page.items
        if not page.more or len(items) >= room:
            return items, page.more


async def _leases(store: MetadataStore, numbers: Iterable[int]) -> dict[int, int]:
    gate = asyncio.Semaphore(LEASES_AT_ONCE)

    async def ask(number: int) -> tuple[int, int]:
        async with gate:
            return number, await store.time_left(number)

    return dict(await asyncio.gather(*map(ask, sorted(set(numbers)))))


async def read(store: MetadataStore, prefixes: str | Sequence[str] = DEFAULT_PREFIXES) -> Reading:
    """Read the keys under one or several prefixes, and whatever else is needed to judge them. Raises as ``inspect``."""
    asked, truncated = await _read_all(store, [prefixes] if isinstance(prefixes, str) else prefixes)
    known, cut = asked, truncated
    if prefixes != DEFAULT_PREFIXES:
        # A segment is judged by a record that may lie outside the prefix.
        known, cut = await _read_all(store, DEFAULT_PREFIXES)
        known = {**known, **asked}
    held = frozenset(key.removeprefix(REPLICAS).partition("/")[0] for key in known if key.startswith(REPLICAS))
    return Reading(asked, Deployment(known.values(), complete=not cut), None if cut else held, truncated)


async def judge(
    store: MetadataStore, reading: Reading, answers: Mapping[ProbeTarget, ProbeAnswer]
) -> dict[str, Verdict]:
    """The verdicts on the keys that were asked for, by key. Raises as ``inspect``."""
    gate = asyncio.Semaphore(LEASES_AT_ONCE)

    async def is_held(manifest: str) -> tuple[str, bool]:
        async with gate:
            return manifest, bool((await store.scan(replicas_prefix(manifest), limit=1)).items)

    manifests = reading.deployment.manifests(reading.asked)
    if reading.held is not None:
        held = {manifest: manifest in reading.held for manifest in manifests}
    else:
        held = dict(await asyncio.gather(*map(is_held, sorted(manifests))))
    verdicts = ((key, reading.deployment.judge(key, answers, held)) for key in reading.asked)
    return {key: verdict for key, verdict in verdicts if verdict is not None}


async def inspect(
    store: MetadataStore, prefixes: str | Sequence[str] = DEFAULT_PREFIXES, *, probe: bool = False
) -> Tree:
    """Read the keys under one or several prefixes and decode them; with ``probe`` ask their endpoints, and judge them.

    Raises ``MetadataUnavailable`` and ``MetadataRefused``; nothing that a key or value holds makes it raise.
    """
    verdicts: dict[str, Verdict] = {}
    unprobed = 0
    if probe:
        reading = await read(store, prefixes)
        items, truncated = reading.asked, reading.truncated
        endpoints = reading.deployment.endpoints(items)
        if len(endpoints) > MAX_PROBES:
            unprobed = len(endpoints)
        else:
            answers = await probing.probe(endpoints, loopback=probing.on_loopback(store.url))
            verdicts = await judge(store, reading, answers)
    else:
        items, truncated = await _read_all(store, [prefixes] if isinstance(prefixes, str) else prefixes)
    left = await _leases(store, (item.lease for item in items.values() if item.lease))
    tree = arrange(items.values(), left, verdicts)
    tree.url = store.url
    tree.version = (await store.check()).version
    tree.truncated = truncated
    tree.unprobed = unprobed
    return tree


async def _read_all(store: MetadataStore, prefixes: Sequence[str]) -> tuple[dict[str, KeyValue], bool]:
    """The keys under some prefixes, at most ``MAX_KEYS``, and whether there are more."""
    items: dict[str, KeyValue] = {}
    truncated = False
    for prefix in prefixes:
        room = MAX_KEYS - len(items)
        if room <= 0:
            return items, True
        found, more = await _read(store, prefix, room)
        items.update((item.key, item) for item in found)
        truncated = truncated or more
    return items, truncated


def inspect_url(
    url: str, credentials: EtcdCredentials | None = None, prefix: str | None = None, *, probe: bool = False
) -> dict[str, Any]:
    """Inspect the store behind a URL from code that runs no event loop; the JSON form of the ``Tree``.

    Without a prefix, all of ``DEFAULT_PREFIXES``. Raises ``BadConfig``, ``MetadataUnavailable``, ``MetadataRefused``.
    """

    async def run() -> Tree:
        store = open_store(url, credentials)
        try:
            return await inspect(store, DEFAULT_PREFIXES if prefix is None else prefix, probe=probe)
        finally:
            await store.close()

    return asyncio.run(run()).to_json()
