"""Origins that are brought as a whole, by one node or several together."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.net.backoff import Backoff
from p2pstore.cluster import claims
from p2pstore.cluster.registry import Registry
from p2pstore.errors import (
    BadSource,
    MetadataUnavailable,
    OriginChanged,
    OriginDiffers,
    OriginNotFound,
    OriginRefused,
    OriginUnavailable,
    OriginUnsuited,
)
from p2pstore.node import Node
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.origins import gathering as gathering_module
from p2pstore.origins import patient, quiet
from p2pstore.origins import web as web_module
from tests.p2pstore.nodes import Start, start
from tests.p2pstore.origins.gatherings import Make, brought, make, short, until
from tests.p2pstore.origins.silent import silent_server
from tests.p2pstore.origins.stand_in import WebStandIn
from tests.p2pstore.samples import MIB, content, large, write_tree

__all__ = ["make", "short", "start"]

PATH = "/m/big.bin"
BIG_BYTES = 50 * MIB + 5
"""Of four sections."""


def big() -> bytes:
    return large(BIG_BYTES)


@pytest.fixture
def web() -> Iterator[WebStandIn]:
    made = WebStandIn()
    made.files[PATH] = big()
    yield made
    made.close()


def ranges_asked(web: WebStandIn, since: int) -> set[str]:
    """Each once: the server may hear of a request only after who sent it was cancelled."""
    return {headers.get("Range", "") for method, _, headers in web.asked[since:] if method == "GET"}


REST = {f"bytes={32 * MIB}-{48 * MIB - 1}", f"bytes={48 * MIB}-{BIG_BYTES - 1}"}
"""What is read of it when two sections have come."""


def sections_of(node: Node) -> list[str]:
    return [h.name for h in node.parts.holdings if h.name.startswith("origins/") and not h.name.endswith("/whole")]


async def test_a_file_and_what_is_left_of_its_sections(start: Start, make: Make, web: WebStandIn) -> None:
    node = await start("one")
    steps = Steps()
    place, revision = await brought(make(node), web.url + PATH, steps=steps)
    assert place.read_bytes() == big()
    assert revision == web.etag(PATH).strip('"')
    assert web.sent == {PATH: BIG_BYTES}
    assert sections_of(node) == []
    assert sum(file.stat().st_size for file in {f.stat().st_ino: f for f in place.parent.iterdir()}.values()) == len(
        big()
    )
    again, _ = await brought(make(node), web.url + PATH)
    assert again.read_bytes() == big()
    assert web.sent == {PATH: BIG_BYTES}


async def test_nodes_that_bring_it_together_read_it_once(start: Start, make: Make, web: WebStandIn) -> None:
    nodes = [await start(f"node{number}") for number in range(4)]
    found = await asyncio.gather(*(brought(make(node), web.url + PATH) for node in nodes))
    assert [place.read_bytes() == big() for place, _ in found] == [True] * 4
    assert web.sent == {PATH: BIG_BYTES}


async def test_sections_that_are_alike_are_one_here_and_make_the_whole(
    start: Start, make: Make, web: WebStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of tensors of zeros: of two that other nodes read a node has one, under the one's name."""
    web.files[PATH] = data = content(16 * MIB, 5) * 3
    one, other = await start("one"), await start("other")
    gathering = make(one)
    with monkeypatch.context() as patch:  # the other has sections 1 and 2, and not the whole
        patch.setattr(gathering, "_join", lambda _: asyncio.Event().wait())
        work = asyncio.create_task(brought(gathering, web.url + PATH))
        await until(lambda: len(sections_of(one)) == 3)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    place, _ = await brought(make(other), web.url + PATH)
    assert place.read_bytes() == data
    assert web.sent == {PATH: len(data)}


async def test_what_has_come_is_passed_on_before_the_file_is_whole(start: Start, make: Make, web: WebStandIn) -> None:
    one, other = await start("one"), await start("other")
    web.hold.clear()
    web.held_from = 40 * MIB
    works = [asyncio.create_task(brought(make(node), web.url + PATH)) for node in (one, other)]
    shared: set[str] = set()

    def same() -> bool:
        shared.update(set(sections_of(one)) & set(sections_of(other)))
        return bool(shared)

    await until(same)
    assert web.sent[PATH] < BIG_BYTES
    web.hold.set()
    assert [place.read_bytes() == big() for place, _ in await asyncio.gather(*works)] == [True, True]
    assert web.sent == {PATH: BIG_BYTES}


async def test_an_origin_that_goes_away_is_waited_for(start: Start, make: Make, web: WebStandIn) -> None:
    node = await start("one")
    web.hold.clear()
    web.held_from = 20 * MIB
    work = asyncio.create_task(brought(make(node), web.url + PATH))
    await until(lambda: web.sent[PATH] == 20 * MIB)
    web.down = True
    web.hold.set()
    asked = len(web.asked)
    await until(lambda: len(web.asked) > asked + 4)
    web.down = False
    place, _ = await work
    assert place.read_bytes() == big()
    assert web.sent[PATH] < BIG_BYTES + 8 * MIB  # what was on its way when connections broke comes again


async def test_a_section_that_stalls_at_one_node_is_read_by_another(
    start: Start, make: Make, web: WebStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server sends nothing to the one; whoever waits hears of that."""
    monkeypatch.setattr(patient, "SECTION_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(quiet, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(gathering_module, "WATCH_SECONDS", 0.05)
    one, other = await start("one"), await start("other")
    steps = Steps()
    stalled, well = make(one), make(other)
    read = stalled._stream

    async def stalls(*given: object) -> None:
        section = given[1]
        if section.begin == 32 * MIB:  # type: ignore[attr-defined]
            monkeypatch.setattr(given[0].source, "stream", hangs)  # type: ignore[attr-defined]
        await read(*given)  # type: ignore[arg-type]

    async def hangs(*_: object) -> AsyncIterator[bytes]:
        await asyncio.sleep(0.3)
        raise OriginUnavailable(origin="x", detail="it sends nothing")
        yield b""

    monkeypatch.setattr(stalled, "_stream", stalls)
    stuck = asyncio.create_task(brought(stalled, web.url + PATH, steps=steps))
    said: list[str] = []

    def told() -> bool:
        said.extend(steps.notes())
        return bool(said)

    await until(told)
    assert f"nothing has come from {web.url}{PATH} for" in said[0]
    place, _ = await brought(well, web.url + PATH)
    assert place.read_bytes() == big()
    place, _ = await stuck
    assert place.read_bytes() == big()


async def test_connections_that_break_again_and_again(start: Start, make: Make, web: WebStandIn) -> None:
    web.break_each = 5 * MIB
    place, _ = await brought(make(await start("one")), web.url + PATH)
    assert place.read_bytes() == big()


async def test_an_origin_that_stays_away_is_told_of_and_what_came_stays(
    start: Start, make: Make, web: WebStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(patient, "SECTION_PATIENCE_SECONDS", 0.5)
    node = await start("one")
    one = make(node)
    web.hold.clear()
    web.held_from = 40 * MIB
    work = asyncio.create_task(brought(one, web.url + PATH))
    await until(lambda: len(sections_of(node)) == 2 and web.sent[PATH] == 40 * MIB)
    web.down = True
    web.hold.set()
    with pytest.raises(OriginUnavailable):  # it answers 503, or broke off and was not asked again
        await work
    web.down = False
    asked = len(web.asked)
    place, _ = await brought(one, web.url + PATH)
    assert place.read_bytes() == big()
    assert ranges_asked(web, asked) == REST


async def test_a_server_that_says_nothing_or_stalls(
    start: Start, make: Make, web: WebStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_module, "SILENCE_SECONDS", 0.5)
    for name in ("PATIENCE_SECONDS", "SECTION_PATIENCE_SECONDS"):
        monkeypatch.setattr(patient, name, 1.0)
    one = make(await start("one"))
    with silent_server() as where, pytest.raises(OriginUnavailable):
        await brought(one, f"http://{where}/x")
    web.hold.clear()
    with pytest.raises(OriginUnavailable):
        await brought(one, web.url + PATH)


async def test_a_file_that_changes_meanwhile_is_refused(start: Start, make: Make, web: WebStandIn) -> None:
    node = await start("one")
    web.hold.clear()
    web.held_from = 40 * MIB
    work = asyncio.create_task(brought(make(node), web.url + PATH))
    await until(lambda: len(sections_of(node)) == 2)
    web.down = True
    web.hold.set()
    web.files[PATH] = content(50 * MIB + 5, 2)
    asked = len(web.asked)
    await until(lambda: len(web.asked) > asked)
    web.down = False
    with pytest.raises(OriginChanged, match="version"):
        await work
    assert sections_of(node) == []
    place, _ = await brought(make(node), web.url + PATH)
    assert place.read_bytes() == web.files[PATH]


@pytest.mark.parametrize("header", ["Repr-Digest", "Digest", "Content-MD5", "x-goog-hash"])
@pytest.mark.parametrize("size", [MIB, 20 * MIB])
async def test_wrong_bytes(start: Start, make: Make, web: WebStandIn, header: str, size: int) -> None:
    web.files[PATH] = data = content(size, 7)
    sha, md5 = (base64.b64encode(hashlib.new(kind, data).digest()).decode() for kind in ("sha256", "md5"))
    told = {"Repr-Digest": f"sha-256=:{sha}:", "Digest": f"SHA-256={sha}", "Content-MD5": md5}
    web.headers[header] = told.get(header, f"crc32c=AAAAAA==, md5={md5}")
    web.wrong.add(PATH)
    node = await start("one")
    with pytest.raises(OriginDiffers):
        await brought(make(node), web.url + PATH)
    web.wrong.clear()
    place, _ = await brought(make(node), web.url + PATH)
    assert place.read_bytes() == data


async def test_servers_without_ranges_or_etags(start: Start, make: Make, web: WebStandIn) -> None:
    web.etags = False
    place, revision = await brought(make(await start("one")), web.url + PATH)
    assert place.read_bytes() == big()
    web.etags = True
    web.ranges, web.files["/other"] = False, content(20 * MIB, 9)
    web.break_each = 15 * MIB
    node = await start("two")
    work = asyncio.create_task(brought(make(node), web.url + "/other"))
    await until(lambda: web.sent["/other"] >= 15 * MIB)
    web.break_each = 0
    other, another = await work
    assert other.read_bytes() == web.files["/other"]
    assert revision != another


@pytest.mark.parametrize(
    ("told", "says"),
    [("parts of it", "does not tell which part it sends"), (f"bytes 7-8/{BIG_BYTES}", "another range")],
)
async def test_a_server_that_sends_another_part_than_it_was_asked_for(
    start: Start, make: Make, web: WebStandIn, told: str, says: str
) -> None:
    web.content_range = told
    with pytest.raises(OriginUnsuited, match=says):
        await brought(make(await start("one")), web.url + PATH)


async def test_a_claim_that_could_not_be_given_back_is_given_back_later(
    start: Start, make: Make, web: WebStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata are away just then: the other node waits for no lease of one that lives."""
    monkeypatch.setattr(claims, "RETRIES", Backoff(0.01, 0.01))
    web.files[PATH] = data = content(MIB, 21)
    one, other = await start("one"), await start("other")
    gathering, real, refused = make(one), claims.give_back, list[str]()

    async def away(registry: Registry, what: str) -> None:
        if registry.node == "one" and len(refused) < 3:
            refused.append(what)
            raise MetadataUnavailable(url="etcd://x", detail="away")
        await real(registry, what)

    async def gives_up(*_: object) -> None:
        raise OriginRefused(origin="x", detail="no")

    monkeypatch.setattr(claims, "give_back", away)
    monkeypatch.setattr(gathering, "_read", gives_up)
    with pytest.raises(OriginRefused):
        await brought(gathering, web.url + PATH)
    place, _ = await brought(make(other), web.url + PATH)
    assert place.read_bytes() == data
    assert len(refused) == 3


async def test_what_has_no_version_is_never_taken_for_what_was_read_before(
    start: Start, make: Make, web: WebStandIn
) -> None:
    """Nor is it put together of two readings."""
    web.etags = False
    one = make(await start("one"))
    assert (await brought(one, web.url + PATH))[0].read_bytes() == big()
    web.files[PATH] = content(BIG_BYTES, 77)
    for node in (one, make(await start("two"))):
        assert (await brought(node, web.url + PATH))[0].read_bytes() == web.files[PATH]
    web.break_each = 5 * MIB
    with pytest.raises(OriginUnavailable):
        await brought(one, web.url + PATH)


async def test_what_a_server_refuses(start: Start, make: Make, web: WebStandIn) -> None:
    one = make(await start("one"))
    with pytest.raises(OriginNotFound, match="404"):
        await brought(one, web.url + "/none")
    web.user = "Basic x"
    with pytest.raises(OriginRefused, match="401"):
        await brought(one, web.url + PATH)
    web.down = True
    with pytest.raises(OriginUnavailable, match="503"):
        await brought(one, web.url + PATH)


async def test_passwords_are_those_of_netrc_and_go_to_their_host_alone(
    start: Start, make: Make, web: WebStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password geheim\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    web.user = "Basic " + base64.b64encode(b"me:geheim").decode()
    elsewhere = WebStandIn(host="localhost")
    try:
        elsewhere.files["/x"] = b"x" * 100
        web.moved["/y"] = f"{elsewhere.url}/x?X-Amz-Signature=geheim"
        one = make(await start("one"))
        place, _ = await brought(one, web.url + PATH)
        assert place.read_bytes() == big()
        place, _ = await brought(one, web.url + "/y")
        assert place.read_bytes() == b"x" * 100
        assert all("Authorization" not in headers for _, _, headers in elsewhere.asked)
        elsewhere.down = True
        with pytest.raises(OriginUnavailable) as away:
            await brought(one, web.url + "/y")
        assert "geheim" not in str(away.value)
    finally:
        elsewhere.close()


def tree() -> dict[str, bytes]:
    return {"a.json": b"{}", "sub/b.bin": large(20 * MIB, 11), "empty": b"", "c.gguf": content(MIB, 12)}


async def test_a_directory_of_this_machine(start: Start, make: Make, tmp_path: Path) -> None:
    write_tree(tmp_path / "o o", tree())
    url = f"file://{tmp_path}/o%20o"
    nodes = [await start(f"node{number}") for number in range(2)]
    selection = Selection(exclude=("*.gguf",))
    found = await asyncio.gather(*(brought(make(node), url, selection) for node in nodes))
    wanted = {path: data for path, data in tree().items() if path != "c.gguf"}
    for place, _ in found:
        assert {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()} == wanted
    assert len({revision for _, revision in found}) == 1
    with pytest.raises(OriginNotFound, match="no such file"):
        await brought(make(nodes[0]), f"file://{tmp_path}/none")
    with pytest.raises(BadSource, match="no file in it fits"):
        await brought(make(nodes[0]), url, Selection(include=("*.x",)))


async def test_secrets_are_in_no_directory_of_this_machine_that_is_brought(
    start: Start, make: Make, tmp_path: Path
) -> None:
    write_tree(tmp_path / "o", {"a": b"a", "home/secret": b"s", "key": b"k"})
    node = await start("one", private=(tmp_path / "o" / "home", tmp_path / "o" / "key"))
    place, _ = await brought(make(node), f"file://{tmp_path}/o")
    assert {str(p.relative_to(place)) for p in place.rglob("*")} == {"a"}
    with pytest.raises(BadSource, match="secrets are in it"):
        await brought(make(node), f"file://{tmp_path}/o/key")


async def test_a_file_of_this_machine_that_is_written_to(
    start: Start, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(big())
    one = make(await start("one"))
    whole = one._read

    async def written_to(*given: object) -> None:
        os.utime(path)
        await whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(one, "_read", written_to)
    with pytest.raises(OriginChanged, match="written to"):
        await brought(one, f"file://{path}")


async def test_one_of_two_that_is_cancelled_costs_the_other_nothing(start: Start, make: Make, web: WebStandIn) -> None:
    """Though it is read for the one: its connections are not closed before they have brought what they began."""
    node = await start("one")
    one = make(node)
    web.hold.clear()
    web.held_from = 40 * MIB
    first = asyncio.create_task(brought(one, web.url + PATH))

    def half_of_one() -> bool:
        growing = [work.coming.grown(each) for work in one._works.values() for each in work.plan.sections]
        return any(each is not None and each.count == 8 * MIB for each in growing) and len(sections_of(node)) == 2

    await until(half_of_one)
    other = asyncio.create_task(brought(one, web.url + PATH))
    await until(lambda: any(len(work._wanting) == 2 for work in one._works.values()))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    web.hold.set()
    place, _ = await other
    assert place.read_bytes() == big()
    asked = Counter(headers["Range"] for method, _, headers in web.asked if method == "GET")
    assert set(asked.values()) == {1}
    assert web.sent == {PATH: BIG_BYTES}


async def test_cancelled_it_goes_on_from_what_came(start: Start, make: Make, web: WebStandIn) -> None:
    node = await start("one")
    one = make(node)
    web.hold.clear()
    web.held_from = 40 * MIB
    work = asyncio.create_task(brought(one, web.url + PATH))
    await until(lambda: len(sections_of(node)) == 2 and web.sent[PATH] == 40 * MIB)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    had = sum(holding.record.size for holding in node.parts.holdings if holding.name in sections_of(node))
    assert had == 32 * MIB
    asked = len(web.asked)
    web.hold.set()
    place, _ = await brought(one, web.url + PATH)
    assert place.read_bytes() == big()
    assert ranges_asked(web, asked) == REST
