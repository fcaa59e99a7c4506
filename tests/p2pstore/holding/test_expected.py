"""A name is known to others a moment before its node can serve it: who asks then waits for that moment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import PeerHasNot
from p2pstore.holding import expected as module
from p2pstore.holding.expected import Expected
from p2pstore.node import Node
from tests.p2pstore.nodes import Start, get, register, start
from tests.p2pstore.samples import MIB, content

__all__ = ["start"]

WAIT = 60.0
DATA = content(2 * MIB + 5)


async def test_it_is_over_when_nobody_is_about_to_hold_it() -> None:
    expected = Expected()
    await asyncio.wait_for(expected.over("a"), WAIT)
    with expected.during(["a", "b"]):
        with expected.during(["a"]):
            await asyncio.wait_for(expected.over("c"), WAIT)
            waiting = [asyncio.create_task(expected.over(digest)) for digest in "ab"]
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
    await asyncio.wait_for(asyncio.gather(*waiting), WAIT)
    with pytest.raises(ZeroDivisionError), expected.during("a"):
        raise ZeroDivisionError
    await asyncio.wait_for(expected.over("a"), WAIT)


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXPECTED_SECONDS", 0.01)
    expected = Expected()
    with expected.during("a"):
        await asyncio.wait_for(expected.over("a"), WAIT)


class Late:
    """Between saying that it holds something and holding it, a node waits until somebody has asked for it."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None) -> None:
        holdings = node.parts.holdings
        self.said, self.asked = asyncio.Event(), asyncio.Event()
        put, over = holdings.put, holdings.expected.over

        async def late_put(*given: Any, **options: Any) -> Any:
            self.said.set()
            await self.asked.wait()
            if fault is not None:
                raise fault
            return await put(*given, **options)

        async def asked_over(digest: str) -> None:
            self.asked.set()
            await over(digest)

        monkeypatch.setattr(holdings, "put", late_put)
        monkeypatch.setattr(holdings.expected, "over", asked_over)


async def test_a_get_at_that_moment(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = await start("one"), await start("other")
    (tmp_path / "f").write_bytes(DATA)
    late = Late(one, monkeypatch)
    registering = asyncio.create_task(register(one, tmp_path / "f"))
    await asyncio.wait_for(late.said.wait(), WAIT)
    await get(other, tmp_path / "got")
    assert late.asked.is_set()
    assert (tmp_path / "got").read_bytes() == DATA
    await asyncio.wait_for(registering, WAIT)


async def test_what_does_not_come_in_the_end(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = await start("one"), await start("other")
    (tmp_path / "f").write_bytes(DATA)
    late = Late(one, monkeypatch, ZeroDivisionError())
    registering = asyncio.create_task(register(one, tmp_path / "f"))
    await asyncio.wait_for(late.said.wait(), WAIT)
    with pytest.raises(PeerHasNot):
        await get(other, tmp_path / "got")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(registering, WAIT)
