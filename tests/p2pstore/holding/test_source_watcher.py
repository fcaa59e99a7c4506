"""A source that changed is served no more, whatever else fails, and what did not change is not given up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from p2pstore.holding import looks
from p2pstore.holding import source_watcher as module
from p2pstore.holding.catalog import Holding
from p2pstore.holding.source_watcher import SourceWatcher
from tests.p2pstore.holding.held import FILES, Full, Held, held, root, scanned
from tests.p2pstore.samples import write_tree

__all__ = ["held", "root"]


@contextlib.asynccontextmanager
async def watched(watcher: SourceWatcher) -> AsyncIterator[asyncio.Task[None]]:
    """It watches until the end of the block."""
    watching = asyncio.create_task(watcher.watch())
    try:
        yield watching
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_watch_gives_up_what_changed(
    held: Held, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    write_tree(tmp_path / "stays", {"": b"stays"})
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    await held.holdings.add(*scanned(tmp_path / "stays", "s"))
    async with watched(held.watcher):
        (root / "b" / "c").write_bytes(b"changed")
        await asyncio.wait_for(held.news.wait(), 30)
    ((given_up, reason),) = held.changed
    assert given_up == holding
    assert "b/c" in reason
    assert [h.name for h in held.holdings] == ["s"]
    assert held.read(manifest) is None


async def until(condition: Callable[[], bool], watching: asyncio.Task[None]) -> None:
    async def poll() -> None:
        while not condition():
            assert not watching.done(), "nobody watches any more"
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), 60)


async def test_changed_sources_are_withdrawn_though_the_catalog_was_full(
    held: Held, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher died of it once, and changed sources were noticed by nobody but a reader."""
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    write_tree(tmp_path / "second", {"": b"second"})
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(tmp_path / "second", "s"))
    full = Full(held.catalog, monkeypatch)
    async with watched(held.watcher) as watching:
        (root / "a").unlink()
        await asyncio.wait_for(full.refused.wait(), 60)
        (tmp_path / "second").unlink()
        full.make_room()
        await until(lambda: {holding.name for holding, _ in held.changed} == {"n", "s"}, watching)
        await until(lambda: list(held.catalog.load()) == [], watching)
    assert len(held.holdings) == 0


async def test_a_source_whose_disk_fails_is_withdrawn_and_one_that_can_be_read_again_is_not(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stamps are as they were, so a look at them found nothing."""
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    broken = True

    def fault(path: str, offset: int) -> str:
        asked.append((path, offset))
        return "it cannot be read: input/output error" if broken else ""

    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(looks, "reading_fault", fault)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    path = holding.spans[0].path
    broken = False
    held.holdings.suspects.unreadable(path, 3, "Input/output error")
    async with watched(held.watcher) as watching:
        await until(lambda: asked == [(path, 3)], watching)
        broken = True
        held.holdings.suspects.unreadable(path, 4, "Input/output error")
        await until(lambda: bool(held.changed), watching)
    assert held.changed[0][1] == f"{path}: it cannot be read: input/output error"
    assert asked == [(path, 3), (path, 4)]
    assert len(held.holdings) == 0


async def test_a_changed_source_is_served_no_more_though_the_catalog_is_full(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    Full(held.catalog, monkeypatch)
    async with watched(held.watcher) as watching:
        (root / "a").write_bytes(b"changed")
        await until(lambda: bool(held.changed), watching)
        assert held.holdings.replicas == {}
        (root / "a").write_bytes(FILES["a"])
        await held.holdings.add(*scanned(root))
        monkeypatch.undo()
        await until(lambda: not held.holdings._to_forget, watching)
    assert [h.name for h, _ in held.catalog.load()] == ["n"], "what lies there again must not be forgotten"


async def test_who_could_not_be_told_of_a_change_is_told_again(
    held: Held, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "second", {"": b"second"})
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(tmp_path / "second", "s"))
    failed: list[str] = []

    async def fails_once(holding: Holding, reason: str) -> None:
        if holding.name == "n" and not failed:
            failed.append(holding.name)
            raise RuntimeError("a bug")
        await held.on_changed(holding, reason)

    watcher = SourceWatcher(held.holdings, fails_once, held.on_touched)
    (root / "a").unlink()
    (tmp_path / "second").unlink()
    with pytest.raises(RuntimeError, match="a bug"):
        await watcher.look()
    assert [holding.name for holding, _ in held.changed] == ["s"]
    await watcher.look()
    assert [holding.name for holding, _ in held.changed] == ["s", "n"]


async def test_a_refused_read_makes_it_look_at_once(held: Held, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 600.0)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    async with watched(held.watcher):
        await asyncio.sleep(0)
        (root / "a").write_bytes(b"changed")
        assert held.read(manifest) is None
        await asyncio.wait_for(held.news.wait(), 30)
    assert len(held.holdings) == 0


async def test_between_looks_nothing_holds_on_to_a_holding(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    looked = asyncio.Event()
    look = held.watcher.look

    async def look_once(*, everywhere: bool) -> None:
        await look(everywhere=everywhere)
        monkeypatch.setattr(module, "WATCH_SECONDS", 1000.0)
        looked.set()

    monkeypatch.setattr(held.watcher, "look", look_once)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    async with watched(held.watcher):
        await asyncio.wait_for(looked.wait(), 60)
        kept = weakref.ref(holding)
        await held.holdings.remove(holding)
        del holding

        async def forgotten() -> None:
            while kept() is not None:  # noqa: ASYNC110 - the thread that looked lets go of it soon after
                await asyncio.sleep(0.01)

        await asyncio.wait_for(forgotten(), 60)


async def test_a_file_system_that_hangs_keeps_nobody_from_seeing_what_changes_on_others(
    held: Held, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)
    write_tree(tmp_path / "far", {"": b"far away"})
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(tmp_path / "far", "f"))
    monkeypatch.setattr(module, "_device", lambda holding: int(holding.name == "f"))
    answers = threading.Event()
    look_at_each = module.look_at_each

    def look(there: Sequence[Holding], unread: Mapping[str, int]) -> tuple[dict[int, str], list[int]]:
        if there[0].name == "f":
            answers.wait(60)
        return look_at_each(there, unread)

    monkeypatch.setattr(module, "look_at_each", look)
    watching = asyncio.create_task(held.watcher.watch())
    try:
        # On a slow day so is the other, for a while.
        await until(lambda: any(str(tmp_path / "far") in each for each in held.watcher.slow), watching)
        (root / "a").unlink()
        (tmp_path / "far").unlink()
        await until(lambda: [holding.name for holding, _ in held.changed] == ["n"], watching)
        answers.set()
        await until(lambda: [holding.name for holding, _ in held.changed] == ["n", "f"], watching)
        await until(lambda: not held.watcher.slow, watching)
    finally:
        answers.set()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def test_a_file_system_rests_for_its_own_look_and_not_for_the_slowest(
    held: Held, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "far", {"": b"far away"})
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(tmp_path / "far", "f"))
    monkeypatch.setattr(module, "_device", lambda holding: int(holding.name == "f"))
    clock, looked = Clock(), list[str]()
    monkeypatch.setattr(module, "time", clock)
    look_at_each = module.look_at_each

    def look(there: Sequence[Holding], unread: Mapping[str, int]) -> tuple[dict[int, str], list[int]]:
        looked.append(there[0].name)
        if there[0].name == "f":
            until_then = time.monotonic() + 60
            while not held.watcher._looks[0].task.done():
                assert time.monotonic() < until_then
                time.sleep(0.01)
            clock.now += 25.0
        return look_at_each(there, unread)

    monkeypatch.setattr(module, "look_at_each", look)
    await held.watcher.look()
    assert sorted(looked) == ["f", "n"]
    await held.watcher.look(everywhere=False)
    assert sorted(looked) == ["f", "n", "n"], "it was due while the other was still looked at"
    clock.now += module.WATCH_SECONDS
    await held.watcher.look(everywhere=False)
    assert sorted(looked) == ["f", "n", "n", "n"]
    clock.now += 25.0 * module.PAUSES
    monkeypatch.setattr(module, "look_at_each", look_at_each)
    (tmp_path / "far").unlink()
    await held.watcher.look(everywhere=False)
    assert [holding.name for holding, _ in held.changed] == ["f"]


async def test_a_look_begins_when_it_is_due_and_not_at_the_next_turn(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held.holdings.add(*scanned(root))
    clock, looked = Clock(), list[float]()
    monkeypatch.setattr(module, "time", clock)

    def look(there: Sequence[Holding], unread: Mapping[str, int]) -> tuple[dict[int, str], list[int]]:
        looked.append(clock.now - 1000.0)
        clock.now += 0.15
        return {}, []

    async def wait(seconds: float) -> bool:
        if len(looked) == 3:
            raise RuntimeError("that is enough")
        clock.now += seconds
        return False

    monkeypatch.setattr(module, "look_at_each", look)
    monkeypatch.setattr(held.holdings.suspects, "wait", wait)
    with pytest.raises(RuntimeError, match="enough"):
        await asyncio.wait_for(held.watcher.watch(), 60)
    assert looked == pytest.approx([2.0, 5.15, 8.3])


async def test_what_could_not_be_read_during_a_look_that_hangs_is_tried_when_it_has_ended(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    path = holding.spans[0].path
    monkeypatch.setattr(looks, "reading_fault", lambda *_: "it cannot be read: input/output error")
    answers = threading.Event()
    look_at_each = module.look_at_each

    def look(there: Sequence[Holding], unread: Mapping[str, int]) -> tuple[dict[int, str], list[int]]:
        if not unread:
            answers.wait(60)
        return look_at_each(there, unread)

    monkeypatch.setattr(module, "look_at_each", look)
    held.holdings.suspects.changed(path, "the first look is to be at once")
    watching = asyncio.create_task(held.watcher.watch())
    try:
        await until(lambda: bool(held.watcher.slow), watching)
        held.holdings.suspects.unreadable("of another file system", 7, "Input/output error")
        held.holdings.suspects.unreadable(path, 3, "Input/output error")
        await until(lambda: not held.holdings.suspects._unread, watching)
        monkeypatch.setattr(module, "PAUSES", 1_000_000)
        answers.set()
        await until(lambda: bool(held.changed), watching)
    finally:
        answers.set()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert held.changed[0][1] == f"{path}: it cannot be read: input/output error"


async def test_what_could_not_be_read_waits_for_the_look_that_it_asks_for(held: Held, root: Path) -> None:
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    await held.watcher.look()
    held.holdings.suspects.unreadable(holding.spans[0].path, 3, "Input/output error")
    await held.watcher.look(everywhere=False)
    assert held.holdings.suspects.take_unread() == {holding.spans[0].path: 3}


async def test_of_two_looks_that_fail_one_is_raised_and_the_other_is_in_the_log(
    held: Held, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_tree(tmp_path / "far", {"": b"far away"})
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(tmp_path / "far", "f"))
    monkeypatch.setattr(module, "_device", lambda holding: int(holding.name == "f"))

    def look(there: Sequence[Holding], unread: Mapping[str, int]) -> tuple[dict[int, str], list[int]]:
        raise RuntimeError(f"a bug at {there[0].name}")

    monkeypatch.setattr(module, "look_at_each", look)
    with pytest.raises(RuntimeError, match="a bug at n"):
        await held.watcher.look()
    assert "a bug at f" in caplog.text
    assert held.watcher._looks == {}


async def test_nothing_is_said_of_a_file_system_from_which_nothing_is_served_any_more(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs ``watch`` again after an error of it begins no look there."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    answers = threading.Event()
    monkeypatch.setattr(module, "look_at_each", lambda *_: (answers.wait(60), ({}, []))[1])
    held.holdings.suspects.changed("any", "the first look is to be at once")
    watching = asyncio.create_task(held.watcher.watch())
    try:
        await until(lambda: bool(held.watcher.slow), watching)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await held.holdings.remove(holding)
        await held.watcher.look()
        assert held.watcher.slow == []
    finally:
        answers.set()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
