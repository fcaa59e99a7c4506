"""A node's thread: what its callers hear when the node cannot go on, ends slowly, or is closed under them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.net.backoff import Backoff
from p2pstore import P2PStore, supervisor
from p2pstore.calls.node_thread import NodeThread
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.registry import Registry
from p2pstore.errors import Closed, ListenRefused, NodeEnded, UsageError
from p2pstore.metadata.urls import open_store
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions

WAIT = 60.0


def a_thread(url: str, name: str = "n") -> NodeThread:
    return NodeThread("this node", NodeOptions(name=name, insecure=True), url, None)


@pytest.fixture
def thread(url: str) -> Iterator[NodeThread]:
    made = a_thread(url)
    yield made
    made.close()


def alive(name: str) -> bool:
    """Whether the loop's own thread runs; its idle workers end in their own time."""
    return name in [each.name for each in threading.enumerate()]


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


def test_a_node_that_does_not_start_leaves_no_thread(url: str, thread: NodeThread) -> None:
    assert alive("p2pstore-n")
    with pytest.raises(ListenRefused):
        NodeThread("this node", NodeOptions(name="bad", host="0.0.0.0"), url, None)
    assert not alive("p2pstore-bad")


def test_a_callback_may_close_and_does_not_wait(thread: NodeThread) -> None:
    async def close() -> None:
        thread.close()
        await asyncio.sleep(WAIT)

    with pytest.raises(Closed, match="this node was closed"):
        thread.call(close())
    thread.close()
    with pytest.raises(Closed):
        thread.node()
    assert not alive("p2pstore-n")


def test_what_fails_while_the_node_is_closed_failed_since_it_was_closed(thread: NodeThread) -> None:
    async def fail_at_the_end() -> None:
        thread.close()
        raise RuntimeError("session is closed")

    with pytest.raises(Closed) as caught:
        thread.call(fail_at_the_end())
    assert "session is closed" in str(caught.value.__cause__)


def test_what_fails_for_a_reason_of_its_own_says_that(thread: NodeThread) -> None:
    async def fail() -> None:
        raise UsageError(detail="no")

    with pytest.raises(UsageError, match="no"):
        thread.call(fail())
    thread.node()


def test_a_node_that_does_not_end_well_is_left_to_its_lease(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Node) -> None:
        raise RuntimeError("a bug")

    made = a_thread(url)
    made.call(made.node().close())
    monkeypatch.setattr(Node, "close", fail)
    with caplog.at_level(logging.ERROR):
        made.close()
    assert "node n did not end as it should; its lease runs out" in caplog.text
    assert not alive("p2pstore-n")
