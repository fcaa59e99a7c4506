"""The way of every get: who is told of its progress is heard."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.objects import steps
from p2pstore.pull import pipeline
from p2pstore.pull.get import GetRequest

WAIT = 60.0


async def test_a_get_fails_with_whoever_is_told_of_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    told = threading.Event()
    copy_local = pipeline.copy_local

    def slowly(*arguments: Any) -> object:
        assert told.wait(WAIT)
        return copy_local(*arguments)

    def emit(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and not told.is_set():
            told.set()
            raise ValueError("no bar to draw")

    monkeypatch.setattr(pipeline, "copy_local", slowly)
    monkeypatch.setattr(steps, "REPORT_SECONDS", 0.001)
    node = await Node.start(NodeOptions("n"), MemoryStore(MemoryServer()))
    try:
        await node.register(tmp_path / "f", "f", hash_name="xxh3_128")
        with pytest.raises(ValueError, match="no bar to draw"):
            await node.get(GetRequest("f", tmp_path / "g"), emit)
    finally:
        await node.close()
    assert not os.path.lexists(tmp_path / "g")  # noqa: ASYNC240 - nothing else runs
