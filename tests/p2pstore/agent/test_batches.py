"""Many items are several calls, and one to whoever listens."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.agent import batches
from p2pstore.agent.batches import ITEMS, ITEMS_BYTES, Event, Item, bounded, joined

ROWS = st.lists(st.tuples(st.text(max_size=30), st.text(max_size=3)), max_size=60)


@given(ROWS)
def test_every_item_is_in_one_batch_in_its_order(items: list[Item]) -> None:
    assert [item for batch in bounded(items) for item in batch] == items
    assert all(bounded(items))


def test_batches_are_bounded_in_number_and_bytes() -> None:
    assert [len(batch) for batch in bounded([("/x", "n")] * (2 * ITEMS + 1))] == [ITEMS, ITEMS, 1]
    long = [("/" + "x" * (ITEMS_BYTES // 3), "n")] * 5
    assert [len(batch) for batch in bounded(long)] == [2, 2, 1]
    assert all(len(json.dumps(batch)) < 2 * ITEMS_BYTES for batch in bounded(long))
    larger = [("/" + "x" * 2 * ITEMS_BYTES, "n"), ("/y", "m")]
    assert [len(batch) for batch in bounded(larger)] == [1, 1], "one that is too long alone goes alone"


def test_progress_and_results_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "ITEMS", 2)
    closed: list[int] = []

    def call(batch: list[Item]) -> Generator[Event, None, None]:
        try:
            for number, _ in enumerate(batch, 1):
                yield {"event": "progress", "done": number, "total": len(batch)}
            yield {"event": "note", "text": batch[0][0]}
            yield {"event": "result", "objects": [name for (name,) in batch], "size": len(batch), "dry": True}
        finally:
            closed.append(len(batch))

    nothing = {"event": "result", "objects": [], "size": 0, "dry": False}
    events = list(joined([("a",), ("b",), ("c",)], call, nothing))
    assert [(e["done"], e["total"]) for e in events if e["event"] == "progress"] == [(1, 3), (2, 3), (3, 3)]
    assert [e["text"] for e in events if e["event"] == "note"] == ["a", "c"]
    assert events[-1] == {"event": "result", "objects": ["a", "b", "c"], "size": 3, "dry": False}
    assert (closed, nothing["objects"]) == ([2, 1], [])
    assert list(joined([], call, nothing)) == [nothing]


def test_whoever_listens_no_more_ends_the_call_under_way() -> None:
    closed: list[bool] = []

    def call(_: list[Item]) -> Generator[Event, None, None]:
        try:
            yield {"event": "progress", "done": 1, "total": 1}
            yield {"event": "result", "objects": []}
        finally:
            closed.append(True)

    events = joined([("a",)], call, {"event": "result", "objects": []})
    next(iter(events))
    events.close()  # type: ignore[attr-defined]
    assert closed == [True]
