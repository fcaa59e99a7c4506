"""Repositories of the hub that are brought as a whole, by one node or several together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from p2pstore.errors import (
    HubNotRead,
    HubUnset,
    OriginDiffers,
    OriginNotFound,
    OriginRefused,
    OriginUnavailable,
    PeerHasNot,
    PeerUnreachable,
    RemoteError,
)
from p2pstore.hub import patience, upstream
from p2pstore.hub.hub import Hub
from p2pstore.hub.listing import blob_name
from p2pstore.node import Node
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.origins import bringing as bringing_module
from p2pstore.origins import gathering as gathering_module
from p2pstore.origins import patient, quiet
from p2pstore.origins.gathering import Gathering
from tests.p2pstore.hub.stand_in import StandIn
from tests.p2pstore.nodes import Start, start
from tests.p2pstore.origins import gatherings
from tests.p2pstore.origins.gatherings import Make, short, until
from tests.p2pstore.origins.gatherings import make as gather
from tests.p2pstore.origins.silent import silent_server
from tests.p2pstore.samples import MIB, content, large

__all__ = ["gather", "short", "start"]

NAME = "org/n"
SMALL, BIG = "m.safetensors", "big.safetensors"
FILES = {
    "config.json": b"{}",
    SMALL: content(3 * MIB + 3),
    "sub/b.txt": b"b",
    "same": b"{}",
    "empty": b"",
}
LARGE_BYTES = 50 * MIB + 5
"""Of four sections."""


def large_file() -> bytes:
    return large(LARGE_BYTES, 3)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    made = StandIn()
    made.repos[NAME] = dict(FILES)
    yield made
    made.close()


@pytest.fixture
def make(gather: Make, stand_in: StandIn) -> Make:
    """Of a node that knows the hub unless told otherwise."""
    return lambda node, *, upstream=True: gather(node, stand_in.url if upstream else None)


def brought(
    one: Gathering, text: str = f"hf://{NAME}", selection: Selection | None = None, steps: Steps | None = None
) -> Awaitable[tuple[Path, str]]:
    return gatherings.brought(one, text, selection, steps, NAME)


def files_in(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def once(stand_in: StandIn) -> bool:
    """Whether each content was read once; two files have the same."""
    sent = dict(stand_in.sent)
    small = sent.pop("config.json", 0) + sent.pop("same", 0)
    return small == 2 and sent == {SMALL: len(FILES[SMALL]), "sub/b.txt": 1}


def sections_of(node: Node) -> list[str]:
    return [holding.name for holding in node.parts.holdings if holding.name.startswith("origins/")]


async def test_all_of_it(start: Start, make: Make, stand_in: StandIn) -> None:
    one = make(await start("one"))
    place, commit = await brought(one)
    assert commit == stand_in.commit(NAME)
    assert files_in(place) == FILES
    again, _ = await brought(one, f"hf://{NAME}@{commit}")
    assert again != place
    assert files_in(again) == FILES
    assert once(stand_in)


async def test_what_is_here_already_counts_as_done(start: Start, make: Make) -> None:
    one, steps = make(await start("one")), _Heard()
    await brought(one)
    await brought(one, steps=steps)
    assert steps.heard[-2:] == [("bringing", sum(map(len, FILES.values()))), ("laying out", len(FILES))]


class _Heard(Steps):
    """Remembers what was done of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, int]] = []

    def begin(self, name: str, total: int = 0, unit: str = "") -> None:
        super().begin(name, total, unit)
        self.heard.append((name, 0))

    def add(self, count: int = 1) -> None:
        super().add(count)
        name, done = self.heard[-1]
        self.heard[-1] = name, done + count


async def test_some_of_it(start: Start, make: Make) -> None:
    one = make(await start("one"))
    place, _ = await brought(one, selection=Selection(include=("*.json",)))
    assert files_in(place) == {"config.json": b"{}"}
    with pytest.raises(OriginRefused, match="none of its files"):
        await brought(one, selection=Selection(include=("*.gguf",)))


async def test_nodes_that_bring_it_together_read_it_once(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.repos[NAME][BIG] = large_file()
    made = [make(await start(f"node{number}")) for number in range(3)]
    found = await asyncio.gather(*map(brought, made))
    assert [files_in(place) for place, _ in found] == [FILES | {BIG: large_file()}] * 3
    assert stand_in.sent.pop(BIG) == LARGE_BYTES
    assert once(stand_in)


async def test_what_has_come_is_passed_on_before_the_file_is_whole(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.repos[NAME] = {BIG: large_file()}
    one, other = await start("one"), await start("other")
    stand_in.hold.clear()
    stand_in.held_from = 40 * MIB
    works = [asyncio.ensure_future(brought(make(node))) for node in (one, other)]
    shared: set[str] = set()

    def same() -> bool:
        shared.update(set(sections_of(one)) & set(sections_of(other)))
        return bool(shared)

    await until(same)
    assert stand_in.sent[BIG] < LARGE_BYTES
    stand_in.hold.set()
    assert [files_in(place) for place, _ in await asyncio.gather(*works)] == [{BIG: large_file()}] * 2


async def test_a_node_that_reads_no_hub_gets_what_others_read(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.repos[NAME] = {BIG: large_file()}
    one = make(await start("one"))
    other = make(await start("other"), upstream=False)
    with pytest.raises(HubUnset, match=f"nobody here has read hf://{NAME} before"):
        await brought(other)
    stand_in.hold.clear()
    stand_in.held_from = 40 * MIB
    reading = asyncio.ensure_future(brought(one))
    await until(lambda: stand_in.sent[BIG] >= 32 * MIB)
    waiting = asyncio.ensure_future(brought(other))
    await until(lambda: len([h for h in other.hub.parts.holdings if h.name.startswith("origins/")]) == 2)
    stand_in.hold.set()
    assert [files_in(place) for place, _ in await asyncio.gather(reading, waiting)] == [{BIG: large_file()}] * 2


async def test_a_node_that_reads_no_hub_is_told_where_nobody_has_it(
    start: Start, make: Make, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(gathering_module, "WATCH_SECONDS", 0.05)
    one, steps, said = make(await start("one")), Steps(), list[str]()
    other = make(await start("other"), upstream=False)
    await brought(one, selection=Selection(include=("*.json",)))

    def told() -> bool:
        said.extend(steps.notes())
        return any("this agent reads no hub; looking again" in text for text in said)

    with monkeypatch.context() as patch:
        patch.setattr(patience, "PEER_PATIENCE_SECONDS", 600.0)
        waiting = asyncio.ensure_future(brought(other, steps=steps))
        await until(told)  # long before it is given up
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    monkeypatch.setattr(patience, "PEER_PATIENCE_SECONDS", 0.2)
    with pytest.raises(HubNotRead, match=r"nobody who is alive holds all of '.*', and this agent reads no hub"):
        await brought(other)


@pytest.mark.parametrize("fault", [PeerHasNot(peer="x", what="it"), PeerUnreachable(peer="x", detail="it ends")])
async def test_who_had_a_file_a_moment_ago_is_looked_past(
    start: Start, make: Make, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, fault: RemoteError
) -> None:
    await brought(make(await start("one")))
    stand_in.down = True
    node = await start("other")
    asked = node.parts.client.manifest
    faults: Counter[str] = Counter()

    async def gone(control: str, digest: str) -> Manifest:
        faults[digest] += 1
        if faults[digest] < 3:
            raise fault
        return await asked(control, digest)

    monkeypatch.setattr(node.parts.client, "manifest", gone)
    place, _ = await brought(make(node))
    assert files_in(place) == FILES
    assert set(faults.values()) == {3}


async def test_what_the_hub_refuses(start: Start, make: Make) -> None:
    one = make(await start("one"))
    for text in ("hf://org/none", f"hf://{NAME}@v9"):
        with pytest.raises(OriginNotFound):
            await brought(one, text)


async def test_a_file_that_is_listed_and_not_there(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.gone = {SMALL}
    with pytest.raises(OriginNotFound, match="404"):
        await brought(make(await start("one")))


async def test_what_is_gated(start: Start, make: Make, stand_in: StandIn) -> None:
    """As a whole, and as usual on the hub: its files are listed, and none is given out."""
    one = make(await start("one"))
    stand_in.token = "secret"
    with pytest.raises(OriginRefused, match="it is gated") as refused:
        await brought(one)
    assert type(refused.value) is OriginRefused
    stand_in.token = ""
    stand_in.repos[NAME][BIG] = large_file()
    for path in (SMALL, BIG):
        stand_in.gated = {path}
        with pytest.raises(OriginRefused, match="it is gated") as refused:
            await brought(make(await start(f"{path}.node")))
        assert type(refused.value) is OriginRefused


async def test_a_hub_that_stalls(start: Start, make: Make, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked what it has, and in the middle of a file."""
    monkeypatch.setattr(upstream, "SILENCE_SECONDS", 2.0)
    monkeypatch.setattr(bringing_module, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(quiet, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(gathering_module, "WATCH_SECONDS", 0.05)
    for name in ("PATIENCE_SECONDS", "SECTION_PATIENCE_SECONDS"):
        monkeypatch.setattr(patient, name, 1.0)
    node, steps = await start("one"), Steps()
    with silent_server() as where:
        hub = Hub(node.parts, node.supervisor, upstream=f"http://{where}")
        with pytest.raises(OriginUnavailable):
            await brought(Gathering(hub), steps=steps)
        await hub.close()
    assert f"hf://{NAME} has not told what it has" in steps.notes()[0]
    stand_in.repos[NAME] = {SMALL: FILES[SMALL]}
    stand_in.hold.clear()
    with pytest.raises(OriginUnavailable):
        await brought(make(node), steps=steps)
    assert any(f"nothing has come from '{SMALL}' of hf://{NAME} for" in text for text in steps.notes())


@pytest.mark.parametrize("path", [SMALL, BIG, "config.json"])
async def test_wrong_bytes(start: Start, make: Make, stand_in: StandIn, path: str) -> None:
    stand_in.repos[NAME] = {path: large_file() if path == BIG else FILES[path]}
    stand_in.wrong.add(path)
    node = await start("one")
    with pytest.raises(OriginDiffers, match=path):
        await brought(make(node))
    assert sections_of(node) == []
    oid = next(file.oid for file in stand_in.files(NAME) if file.path == path)
    assert not list(node.parts.holdings.named(blob_name(oid)))
    stand_in.wrong.clear()
    place, _ = await brought(make(node))
    assert files_in(place) == stand_in.repos[NAME]


async def test_a_path_that_leads_elsewhere_is_not_written(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.repos[NAME]["../../x"] = b"x"
    with pytest.raises(OriginUnavailable, match="cannot be"):
        await brought(make(await start("one")))


async def test_a_hub_that_gives_out_no_parts(
    start: Start, make: Make, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "RETRIES", patient.Backoff(0.01, 0.01))
    stand_in.repos[NAME] = {BIG: large_file()}
    stand_in.ranges = False
    stand_in.break_after[BIG] = [0, 20 * MIB]  # the first is what asks for a part
    made = [make(await start(f"node{number}")) for number in range(2)]
    found = await asyncio.gather(*map(brought, made))
    assert [files_in(place) for place, _ in found] == [{BIG: large_file()}] * 2
    assert stand_in.sent[BIG] <= 20 * MIB + LARGE_BYTES + 4 * MIB


async def test_cancelled_it_goes_on_from_what_came(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.repos[NAME] = {BIG: large_file()}
    node = await start("one")
    one = make(node)
    stand_in.hold.clear()
    stand_in.held_from = 40 * MIB
    work = asyncio.ensure_future(brought(one))
    await until(lambda: len(sections_of(node)) == 2)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    asked = len(stand_in.asked_ranges)
    stand_in.hold.set()
    place, _ = await brought(one)
    assert files_in(place) == {BIG: large_file()}
    ranges = {wanted for _, wanted in stand_in.asked_ranges[asked:]} - {"bytes=0-0"}
    assert ranges == {f"bytes={32 * MIB}-{48 * MIB - 1}", f"bytes={48 * MIB}-{LARGE_BYTES - 1}"}


async def test_a_cancel_before_anything_came_leaves_nothing_claimed(
    start: Start, make: Make, stand_in: StandIn
) -> None:
    """A task that is cancelled before its first step runs nothing of itself."""
    one, other = make(await start("one")), make(await start("other"))
    for rounds in range(2, 40):
        bringing = asyncio.ensure_future(brought(one))
        for _ in range(rounds):
            await asyncio.sleep(0)
        bringing.cancel()
        await asyncio.gather(bringing, return_exceptions=True)
    place, _ = await brought(other)
    assert files_in(place) == FILES
    place, _ = await brought(one)
    assert files_in(place) == FILES


async def test_one_of_two_that_is_cancelled_does_not_end_the_other(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.repos[NAME] = {BIG: large_file()}
    node = await start("one")
    one = make(node)
    stand_in.hold.clear()
    stand_in.held_from = 40 * MIB
    both = [asyncio.ensure_future(brought(one)) for _ in range(2)]
    await until(lambda: len(sections_of(node)) == 2)
    both[0].cancel()
    await asyncio.gather(both[0], return_exceptions=True)
    stand_in.hold.set()
    place, _ = await both[1]
    assert files_in(place) == {BIG: large_file()}
    asked = Counter(wanted for _, wanted in stand_in.asked_ranges if wanted != "bytes=0-0")
    assert set(asked.values()) == {1}, "what was being read is read on"


async def test_what_fails_for_one_may_come_for_another(start: Start, make: Make, stand_in: StandIn) -> None:
    """The same content of two repositories, of which one does not give it out."""
    stand_in.repos = {NAME: {"gated.safetensors": large_file()}, "org/open": {BIG: large_file()}}
    stand_in.gated = {"gated.safetensors"}
    one = make(await start("one"))
    refused, came = await asyncio.gather(brought(one), brought(one, "hf://org/open"), return_exceptions=True)
    assert isinstance(refused, OriginRefused)
    assert isinstance(came, tuple)
    assert files_in(came[0]) == {BIG: large_file()}
