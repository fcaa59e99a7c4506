"""A file in its order, taken as it comes, by real nodes."""

from __future__ import annotations

import asyncio
import gc
import mmap
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from p2pstore.errors import NotInObject, ObjectNotFound, UsageError
from p2pstore.node import Node
from p2pstore.objects.chosen import Choice, parse_range
from p2pstore.pull import stream_get, tensor_survey
from p2pstore.pull.get import GetRequest, GetResult
from p2pstore.pull.stream_get import windows
from p2pstore.tensors.plan import Piece
from tests.p2pstore.nodes import Start, leftovers, start
from tests.p2pstore.samples import MIB, content, manifest_of, write_tree

__all__ = ["start"]

WAIT = 60.0
DATA = content(9 * MIB + 77)
FILES = {"a": content(3), "b": DATA, "empty": b""}


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_get, "WINDOW_BYTES", 2 * MIB)


class Taker:
    def __init__(self) -> None:
        self.data = bytearray()
        self.events: list[dict[str, Any]] = []

    async def take(self, data: memoryview) -> None:
        await asyncio.sleep(0)
        self.data += data

    async def get(self, node: Node, name: str, text: str = "") -> GetResult:
        choice = Choice(range=parse_range(text)) if text else Choice()
        request = GetRequest(name, Path("-"), choice=choice)
        return await asyncio.wait_for(node.stream(request, self.events.append, self.take), WAIT)


async def nodes(start: Start, tmp_path: Path) -> tuple[Node, Node]:
    one, two = await start("one"), await start("two")
    write_tree(tmp_path / "tree", FILES)
    (tmp_path / "file").write_bytes(DATA)
    await one.register(tmp_path / "tree", "tree", hash_name="xxh3_128", chunk_size=MIB)
    await one.register(tmp_path / "file", "file", hash_name="xxh3_128", chunk_size=MIB)
    return one, two


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("file", "", DATA),
        ("tree/b", "", DATA),
        ("tree/empty", "", b""),
        ("file", "5-4000000", DATA[5:4000001]),
        ("file", "-100", DATA[-100:]),
    ],
)
async def test_it_comes_in_order(start: Start, tmp_path: Path, name: str, text: str, wanted: bytes) -> None:
    _, two = await nodes(start, tmp_path)
    taker = Taker()
    result = await taker.get(two, name, text)
    assert taker.data == wanted
    assert (result.size, result.dest, result.seeding) == (len(wanted), "-", False)
    assert result.bytes_pulled >= len(wanted)
    assert len(two.holdings) == 0
    assert not leftovers(tmp_path)
    done = [event["done"] for event in taker.events if event["event"] == "progress" and event["total"]]
    assert all(count <= len(wanted) for count in done)


async def test_what_is_here_moves_nothing(start: Start, tmp_path: Path) -> None:
    one, _ = await nodes(start, tmp_path)
    taker = Taker()
    assert (await taker.get(one, "file")).bytes_pulled == 0
    assert taker.data == DATA


async def test_no_more_is_held_than_two_windows(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path)
    taker = Taker()
    held, taking = asyncio.Event(), asyncio.Event()

    async def hold(data: memoryview) -> None:
        taking.set()
        await held.wait()
        taker.data += data

    taker.take = hold  # type: ignore[method-assign]
    getting = asyncio.create_task(taker.get(two, "file"))
    await asyncio.wait_for(taking.wait(), WAIT)
    await asyncio.sleep(1)  # in which more would come
    before = max((event["done"] for event in taker.events if event["event"] == "progress"), default=0)
    assert before <= 4 * MIB
    held.set()
    await getting
    assert taker.data == DATA


async def test_whoever_takes_nothing_more_ends_it(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path)
    taker = Taker()

    async def refuse(data: memoryview) -> None:
        raise ConnectionResetError

    taker.take = refuse  # type: ignore[method-assign]
    with pytest.raises(ConnectionResetError):
        await taker.get(two, "file")
    assert two.gets.running == 0


async def test_what_cannot_be_streamed(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path)
    with pytest.raises(UsageError, match="tree is a directory; one file of it"):
        await Taker().get(two, "tree")
    with pytest.raises(NotInObject):
        await Taker().get(two, "tree/c")
    with pytest.raises(ObjectNotFound):
        await Taker().get(two, "nothing")


def test_windows_are_chunks_in_order() -> None:
    manifest = manifest_of({"a": b"x" * 10, "b": content(100)}, 10)
    found = list(windows(manifest, Piece(10, 100, 100, 1, 0, 0)))
    assert [n for window in found for n in window] == list(range(1, 11))


class Counted(mmap.mmap):
    """Memory whose life is known; it is made in other threads than those that count it."""

    made: ClassVar[list[weakref.ref[Counted]]] = []

    def __init__(self, *_: object) -> None:
        self.made.append(weakref.ref(self))

    @classmethod
    def alive(cls) -> list[Counted]:
        """What there is of it now."""
        return [each for each in (made() for made in tuple(cls.made)) if each is not None]


async def test_what_was_taken_is_let_go_of(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Of a window that is being taken, and of the one that comes meanwhile, there is memory, and of no other."""
    _, two = await nodes(start, tmp_path)
    monkeypatch.setattr(tensor_survey, "mmap", SimpleNamespace(mmap=Counted))
    request.addfinalizer(gc.enable)
    gc.disable()  # else it depends on when that comes
    most: list[int] = []
    taker = Taker()

    async def take(data: memoryview) -> None:
        await taker.take(data)
        most.append(sum(map(len, Counted.alive())))

    get = two.stream(GetRequest("file", Path("-"), choice=Choice()), taker.events.append, take)
    await asyncio.wait_for(get, WAIT)
    assert bytes(taker.data) == DATA
    assert 0 < max(most) <= 2 * stream_get.WINDOW_BYTES
