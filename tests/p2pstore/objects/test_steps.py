"""A step has a name, a unit and a count, and whoever waits hears of it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from p2pstore.objects import steps as module
from p2pstore.objects.steps import Steps, reported


def test_nothing_is_said_between_steps() -> None:
    steps = Steps()
    assert steps.event() is None
    steps.begin("syncing")
    assert steps.event() == {"event": "progress", "step": "syncing", "unit": "", "done": 0, "total": 0, "peers": 0}
    steps.end()
    assert steps.event() is None


def test_a_step_counts_from_its_beginning_whoever_counts() -> None:
    steps = Steps()
    steps.begin("listing", unit="files")
    steps.add(7)
    steps.begin("hashing", 100_000, "B")
    threads = [threading.Thread(target=lambda: [steps.add() for _ in range(10_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    event = steps.event()
    assert event is not None
    assert (event["step"], event["unit"], event["done"], event["total"]) == ("hashing", "B", 40_000, 100_000)


async def test_notes_are_told_once_and_in_order_also_at_the_end() -> None:
    steps, told = Steps(), list[dict[str, Any]]()
    async with reported(steps, told.append):
        steps.note("a")
        steps.note("b")
    assert told == [{"event": "note", "text": "a"}, {"event": "note", "text": "b"}]
    assert steps.notes() == []


async def test_steps_are_reported_until_the_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0)
    steps, told, heard = Steps(), [], asyncio.Event()

    def emit(event: dict[str, Any]) -> None:
        told.append((event["step"], event["done"]))
        heard.set()

    async with reported(steps, emit):
        for _ in range(3):
            await asyncio.sleep(0)
        assert told == []
        steps.begin("planning")
        await asyncio.wait_for(heard.wait(), 60)
    count = len(told)
    assert set(told) == {("planning", 0)}
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(told) == count


async def test_a_fault_of_who_listens_is_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0)
    steps = Steps()
    steps.begin("planning")

    async def call(*, looks: bool) -> None:
        raised = asyncio.Event()

        def emit(_: dict[str, Any]) -> None:
            raised.set()
            raise ValueError("nobody listens")

        async with reported(steps, emit) as check:
            await asyncio.wait_for(raised.wait(), 60)
            await asyncio.sleep(0)
            if looks:
                check()
                raise AssertionError("it goes on")

    for looks in (True, False):
        with pytest.raises(ValueError, match="nobody listens"):
            await call(looks=looks)
