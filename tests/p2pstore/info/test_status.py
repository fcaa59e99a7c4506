"""What a node says of itself, and of what failed in it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.net.threads import Failure
from engine.serving.segment_server import SegmentServer
from tests.p2pstore.nodes import WAIT, Start, register, root, start
from tests.p2pstore.samples import MIB
from tests.p2pstore.two_versions import two

__all__ = ["root", "start", "two"]


async def test_status(start: Start, root: Path) -> None:
    a = await start("a")
    await register(a, root)
    status = a.status()
    assert (status["node"], status["objects"], status["metadata_ok"]) == ("a", 1, True)
    assert status["serving_bytes"] == 4 * MIB + 3
    await a.close()
    await a.close()


async def test_the_status_tells_what_failed_and_goes_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    a = await start("a", ttl=2)
    assert {task["name"]: task["state"] for task in a.status()["tasks"]} == {
        "lease keeper": "running",
        "source watcher": "running",
        "part watcher": "running",
        "cache keeper": "running",
        "source checker": "running",
    }
    looked = asyncio.Event()

    async def look(*, everywhere: bool) -> None:
        del everywhere
        if not looked.is_set():
            looked.set()
            raise RuntimeError("a bug")

    def watcher() -> dict[str, Any]:
        return next(task for task in a.status()["tasks"] if task["name"] == "source watcher")

    async def restarted() -> None:
        while not (watcher()["failures"] and watcher()["state"] == "running"):  # noqa: ASYNC110 - it says nothing
            await asyncio.sleep(0.05)

    monkeypatch.setattr(a.parts.watcher, "look", look)
    await asyncio.wait_for(restarted(), WAIT)
    assert (watcher()["failures"], watcher()["last_error"]) == (1, "RuntimeError: a bug")
    assert watcher()["last_failure"] is not None


async def test_the_status_tells_what_failed_in_the_engines_threads(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await start("a")
    monkeypatch.setattr(SegmentServer, "failures", (Failure("data watcher", 3, "OSError: x", 1_787_392_800.0),))
    assert a.status()["tasks"][-1] == {
        "name": "data watcher",
        "owner": "engine",
        "policy": "go on",
        "state": "running",
        "failures": 3,
        "last_error": "OSError: x",
        "last_failure": "2026-08-22T10:00:00Z",
    }
