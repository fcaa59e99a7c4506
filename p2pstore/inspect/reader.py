"""From a metadata store to the tree of what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from p2pstore.inspect import ours, upstream
from p2pstore.inspect.tree import Tree, entry_of
from p2pstore.inspect.values import Malformed, preview
from p2pstore.metadata.credentials import EtcdCredentials
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


def arrange(items: Iterable[KeyValue], lease_left: Mapping[int, int]) -> Tree:
    """The tree of some keys; pure, and total: a value that cannot be decoded is marked, never raised."""
    tree = Tree()
    places = {"node": tree.nodes, "object": tree.objects, "replica": tree.replicas}
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
            places[family].append(entry_of(item, family, fields, malformed, left))
        elif matched is not None:
            tree.upstream.append(entry_of(item, matched.family, fields, malformed, left))
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


async def inspect(store: MetadataStore, prefixes: str | Sequence[str] = DEFAULT_PREFIXES) -> Tree:
    """Read the keys under one or several prefixes and decode them.

    Raises ``MetadataUnavailable`` and ``MetadataRefused``; nothing that a key or value holds makes it raise.
    """
    items: dict[str, KeyValue] = {}
    truncated = False
    for prefix in [prefixes] if isinstance(prefixes, str) else prefixes:
        room = MAX_KEYS - len(items)
        if room <= 0:
            truncated = True
            break
        found, more = await _read(store, prefix, room)
        items.update((item.key, item) for item in found)
        truncated = truncated or more
    left = await _leases(store, (item.lease for item in items.values() if item.lease))
    tree = arrange(items.values(), left)
    tree.url = store.url
    tree.version = (await store.check()).version
    tree.truncated = truncated
    return tree


def inspect_url(url: str, credentials: EtcdCredentials | None = None, prefix: str | None = None) -> dict[str, Any]:
    """Inspect the store behind a URL from code that runs no event loop; the JSON form of the ``Tree``.

    Without a prefix, all of ``DEFAULT_PREFIXES``. Raises ``BadConfig``, ``MetadataUnavailable``, ``MetadataRefused``.
    """

    async def run() -> Tree:
        store = open_store(url, credentials)
        try:
            return await inspect(store, DEFAULT_PREFIXES if prefix is None else prefix)
        finally:
            await store.close()

    return asyncio.run(run()).to_json()
