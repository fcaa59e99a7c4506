"""Calls of many items, made as several calls: each is bounded, as is what the agent answers. Pure.

Whoever listens hears one call: progress over all items, and one result in the end.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

ITEMS = 1024
ITEMS_BYTES = 400 * 1024
"""Items of one call, and bytes of their JSON: the agent bounds what it reads, and its answer names all.

Their directories' names go along, so there is room for as much again."""

Event = dict[str, Any]
Item = tuple[str, ...]


def bounded(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The items in as few lists as keep within ``ITEMS`` and ``ITEMS_BYTES``."""
    batch: list[Item] = []
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


def joined(
    items: Sequence[Item], call: Callable[[list[Item]], Generator[Event, None, None]], nothing: Event
) -> Iterator[Event]:
    """The events of as many calls as the items take, as those of one.

    ``nothing`` is the result of a call without items: what its fields hold is added up, but for texts and truth values.
    """
    total = dict(nothing)
    added = [key for key, value in nothing.items() if not isinstance(value, (str, bool))]
    done = 0
    for batch in bounded(items):
        with contextlib.closing(call(batch)) as events:
            for event in events:
                if event.get("event") == "progress":
                    yield {**event, "done": done + event["done"], "total": len(items)}
                elif event.get("event") == "result":
                    for key in added:
                        total[key] = total[key] + event[key]
                else:
                    yield event
        done += len(batch)
    yield total
