"""The calls about what lies on a node: a part of ``AgentClient``, and how calls of many items are bounded."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

DELETE_TIMEOUT = 120.0
"""Seconds for the files of what somebody named to go; other nodes are asked before."""

ITEMS = 1024
ITEMS_BYTES = 400 * 1024
"""Paths that one call registers, and bytes of their JSON: the agent bounds what it reads, and its answer names all.

Their directories' names go along, so there is room for as much again."""

Event = dict[str, Any]


class CacheCalls(ABC):
    """See ``AgentClient``."""

    @abstractmethod
    def _call(
        self, method: str, target: str, body: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """A call that is answered at once."""

    @abstractmethod
    def _events(self, target: str, body: Mapping[str, object] | Iterator[bytes]) -> Generator[Event, None, None]:
        """A call that takes long."""

    def unregister_and_delete(self, name: str, *, last_copies: bool) -> dict[str, Any]:
        """``POST /v1/unregister-delete``: and delete the files, if this agent wrote all of them."""
        body = {"name": name, "last_copies": last_copies}
        return self._call("POST", "/v1/unregister-delete", body, timeout=DELETE_TIMEOUT)

    def cache(self) -> dict[str, Any]:
        """``GET /v1/cache``: every copy that lies on this node, and the quota."""
        return self._call("GET", "/v1/cache")

    def pin(self, names: Sequence[str], *, pinned: bool) -> dict[str, Any]:
        """``POST /v1/cache-pin``: of copies by names of objects or absolute paths, whether they are to stay."""
        return self._call("POST", "/v1/cache-pin", {"names": list(names), "pinned": pinned})

    def prune(
        self,
        *,
        older_than: float = 0.0,
        larger_than: int = 0,
        keep: Sequence[str] = (),
        only: Sequence[tuple[str, str, str]] | None = None,
        dry_run: bool = False,
        last_copies: bool = False,
    ) -> Iterator[Event]:
        """``POST /v1/cache-prune``: delete what fits, and of that ``only`` those of a name, a place and a manifest.

        Of many that are named, as many calls as it takes: each is bounded.
        """
        how = {"older_than": older_than, "larger_than": larger_than, "keep": list(keep)}
        how |= {"dry_run": dry_run, "last_copies": last_copies}
        total: dict[str, Any] = {"event": "result", "deleted": [], "kept": [], "bytes": 0, "dry_run": dry_run}
        done = 0
        batches: Iterable[list[tuple[str, ...]] | None] = [None] if only is None else bounded(only)
        for batch in batches:
            with contextlib.closing(self._events("/v1/cache-prune", {**how, "only": batch})) as events:
                for event in events:
                    if event.get("event") == "progress" and only is not None:
                        yield {**event, "done": done + event["done"], "total": len(only)}
                    elif event.get("event") == "result":
                        for key in ("deleted", "kept", "bytes"):
                            total[key] += event[key]
                    else:
                        yield event
            done += len(batch or ())
        yield total


def bounded(items: Sequence[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    """The items in as few lists as keep within ``ITEMS`` and ``ITEMS_BYTES``."""
    batch: list[tuple[str, ...]] = []
    size = 0
    for item in items:
        length = len(json.dumps(item))
        if batch and (len(batch) == ITEMS or size + length > ITEMS_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch
