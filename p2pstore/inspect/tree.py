"""What an inspection found, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from p2pstore.inspect.staleness import Verdict
from p2pstore.inspect.values import printable
from p2pstore.metadata.store import KeyValue


@dataclass(frozen=True)
class Entry:
    """One key: what kind it is, what was decoded, and why not where it was not.

    ``lease_left`` is in seconds; None without a lease, 0 where it just ran out. ``malformed`` is empty for a value
    that is as it should be. ``verdict`` says whether it is stale, where that was judged.
    """

    family: str
    key: str
    size: int
    lease: int = 0
    lease_left: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    malformed: str = ""
    verdict: Verdict | None = None

    def to_json(self) -> dict[str, Any]:
        """The decoded fields, with ``key``, ``lease_left`` and, where they apply, ``malformed``, ``state``, ``why``."""
        data: dict[str, Any] = {**self.fields, "key": self.key, "lease_left": self.lease_left}
        if self.malformed:
            data["malformed"] = self.malformed
        if self.verdict is not None:
            data |= {"state": self.verdict.state.value, "why": self.verdict.why}
        return data


@dataclass
class Tree:
    """Everything found: our nodes, objects (each with its replicas), upstream's records, and the rest.

    ``versions`` are earlier ones of objects, each with its replicas, too; ``tags`` lead to these or those.
    ``orphans`` are replicas of a manifest that none of these names. ``truncated``: there were more keys than are read.
    ``unprobed``: endpoints that were not asked whether they live, since there are too many.
    """

    url: str = ""
    version: str = ""
    nodes: list[Entry] = field(default_factory=list)
    objects: list[Entry] = field(default_factory=list)
    versions: list[Entry] = field(default_factory=list)
    tags: list[Entry] = field(default_factory=list)
    replicas: list[Entry] = field(default_factory=list)
    upstream: list[Entry] = field(default_factory=list)
    unknown: list[Entry] = field(default_factory=list)
    truncated: bool = False
    unprobed: int = 0

    @property
    def orphans(self) -> list[Entry]:
        """Replicas of a manifest that no object names, no earlier version of one, and no tag."""
        named = {entry.fields.get("manifest") for entry in (*self.objects, *self.versions, *self.tags)}
        return [entry for entry in self.replicas if entry.fields["manifest"] not in named]

    def to_json(self) -> dict[str, Any]:
        """The tree as JSON types.

        Keys are url, version, nodes, objects, versions, tags, orphans, upstream, unknown, truncated and unprobed.
        """
        by_manifest: dict[str, list[dict[str, Any]]] = {}
        for entry in self.replicas:
            by_manifest.setdefault(entry.fields["manifest"], []).append(entry.to_json())

        def held(entries: list[Entry]) -> list[dict[str, Any]]:
            return [{**e.to_json(), "replicas": by_manifest.get(e.fields.get("manifest", ""), [])} for e in entries]

        return {
            "url": self.url,
            "version": self.version,
            "nodes": [entry.to_json() for entry in self.nodes],
            "objects": held(self.objects),
            "versions": held(self.versions),
            "tags": [entry.to_json() for entry in self.tags],
            "orphans": [entry.to_json() for entry in self.orphans],
            "upstream": [{"family": entry.family, **entry.to_json()} for entry in self.upstream],
            "unknown": [{**entry.to_json(), "size": entry.size} for entry in self.unknown],
            "truncated": self.truncated,
            "unprobed": self.unprobed,
        }


def entry_of(
    item: KeyValue,
    family: str,
    fields: dict[str, Any],
    malformed: str = "",
    lease_left: int | None = None,
    verdict: Verdict | None = None,
) -> Entry:
    """The entry of a key; the key is made printable."""
    return Entry(family, printable(item.key), len(item.value), item.lease, lease_left, fields, malformed, verdict)
