"""What is brought first of a file that somebody reads meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path

from p2pstore.origins.coming import Coming, Room
from p2pstore.origins.sections import plan
from p2pstore.origins.source import OriginFile

MIB = 1 << 20
WAIT = 60.0


def coming(sections: int = 8) -> Coming:
    return Coming(plan(OriginFile("", "p", sections * 16 * MIB - 5, "1")))


def taken(one: Coming, waiting: deque[int]) -> list[int]:
    """In which order sections of these numbers are brought."""
    left = deque(one.plan.sections[number] for number in waiting)
    return [one.plan.sections.index(one.next(left)) for _ in range(len(waiting))]


def test_without_readers_it_is_as_it_stands() -> None:
    assert taken(coming(), deque([5, 6, 0, 1])) == [5, 6, 0, 1]


def test_what_somebody_waits_for_comes_first_and_then_what_follows_it() -> None:
    one = coming()
    one.reads("a", 2 * 16 * MIB + 1)
    assert taken(one, deque([5, 6, 0, 2, 1, 3])) == [2, 3, 5, 6, 0, 1]
    one.reads("b", 6 * 16 * MIB)
    assert taken(one, deque([5, 0, 6, 2, 1])) == [6, 2, 5, 0, 1]
    one.left("a")
    one.left("b")
    assert taken(one, deque([5, 0])) == [5, 0]


def test_which_section_has_a_byte() -> None:
    one = coming()
    for number in (0, 3, 7):
        section = one.plan.sections[number]
        assert one.section_at(section.begin) == one.section_at(section.end - 1) == section


async def test_what_grows_is_told(tmp_path: Path) -> None:
    one = coming()
    section = one.plan.sections[1]
    (tmp_path / "part").write_bytes(b"abc")
    descriptor = os.open(tmp_path / "part", os.O_RDONLY)
    assert one.grown(section) is None
    waiting = asyncio.create_task(one.changed(WAIT))
    await asyncio.sleep(0)
    with one.growing(section, descriptor) as grew:
        grew(3)
        await asyncio.wait_for(waiting, WAIT)
        found = one.grown(section)
        assert found is not None
        assert found.count == 3
        mine = found.opened()
        os.close(descriptor)
    assert os.pread(mine, 10, 0) == b"abc"
    os.close(mine)
    assert one.grown(section) is None


async def test_what_is_urgent_waits_for_no_place() -> None:
    room, urgent, done = Room(1), asyncio.Event(), list[str]()

    async def work(name: str, pressing: bool) -> None:
        async with room.place(lambda: pressing and urgent.is_set()):
            done.append(name)

    async with room.place(lambda: False):
        works = [asyncio.create_task(work(name, name == "urgent")) for name in ("other", "urgent")]
        await asyncio.sleep(0.3)
        assert done == []
        urgent.set()
        await asyncio.wait_for(works[1], WAIT)
        assert done == ["urgent"]
    await asyncio.wait_for(works[0], WAIT)
