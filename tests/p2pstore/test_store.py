"""A node inside one's own process: what its callers hear when it cannot go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.net.backoff import Backoff
from p2pstore import P2PStore, supervisor
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.registry import Registry
from p2pstore.errors import NodeEnded, UsageError
from p2pstore.metadata.urls import open_store
from p2pstore.node import Node
from tests.p2pstore.samples import write_tree

WAIT = 60.0


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Once set, the lease keeper of a node that starts does nothing but fail."""
    broken = threading.Event()

    async def keep(_: Membership) -> None:
        while not broken.is_set():  # noqa: ASYNC110 - the event is of another thread
            await asyncio.sleep(0.01)
        raise RuntimeError("a bug")

    monkeypatch.setattr(Membership, "keep", keep)
    monkeypatch.setattr(supervisor, "RESTARTS", Backoff(0.001, 0.001))
    yield broken
    broken.set()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_node_that_cannot_go_on_leaves_and_says_why(url: str, breaks: threading.Event, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)

    def listed() -> bool:
        return "broken" in asyncio.run(Registry(open_store(url), "other").nodes(["broken"]))

    with P2PStore(url, node="broken") as store:
        store.register("f", tmp_path / "f")
        assert listed()
        breaks.set()
        until(lambda: not listed())
        with pytest.raises(NodeEnded, match=r"its lease keeper does not work .*RuntimeError: a bug"):
            store.info("f")
        with pytest.raises(NodeEnded):
            store.get("f", tmp_path / "g")
        store.close()
        store.close()


def test_who_waits_is_told_that_the_node_has_ended(
    url: str, breaks: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail_with_the_node(self: Node, name: str) -> dict[str, object]:
        breaks.set()
        while self.supervisor.fatal is None:  # noqa: ASYNC110 - it says nothing
            await asyncio.sleep(0.01)
        raise RuntimeError("session is closed")

    monkeypatch.setattr(Node, "info", fail_with_the_node)
    with P2PStore(url, node="broken") as store, pytest.raises(NodeEnded, match="its lease keeper") as caught:
        store.info("f")
    assert "session is closed" in str(caught.value.__cause__)


def test_a_caller_that_exits_in_a_callback_takes_nobody_along(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave(self: Node, name: str) -> dict[str, object]:
        raise SystemExit(3)

    with P2PStore(url, node="n") as store:
        with monkeypatch.context() as patched:
            patched.setattr(Node, "info", leave)
            with pytest.raises(SystemExit):
                store.info("f")
        assert list(store.list()) == []
        tasks = {task["name"]: task["last_error"] for task in store._open().status()["tasks"]}
        assert tasks["event loop"] == "SystemExit: 3"


def test_an_empty_path_is_not_the_current_directory(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with P2PStore(url) as store:
        store.register("n", b"x")
        for call in (
            lambda: store.register("empty", ""),
            lambda: store.register_many({"empty": ""}),
            lambda: store.get("n", ""),
        ):
            with pytest.raises(UsageError, match="the path is empty"):
                call()
        assert [each["name"] for each in store.list()] == ["n"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_taken_of_a_directory(url: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_tree(root, {"a.bin": b"a", "b.txt": b"b", ".git/HEAD": b"c"})

    def files(info: dict[str, Any]) -> set[str]:
        return {file["path"] for file in info["files"]}

    with P2PStore(url) as store:
        store.register("usual", root)
        assert files(store.info("usual")) == {"a.bin", "b.txt"}
        store.register("some", root, include=["*.bin", "*.txt"], exclude=["b.*"])
        assert files(store.info("some")) == {"a.bin"}
        store.register_many({"all": root}, everything=True)
        assert files(store.info("all")) == {"a.bin", "b.txt", ".git/HEAD"}
        with pytest.raises(UsageError, match="bad pattern"):
            store.register("bad", root, exclude=["[z-a]"])
