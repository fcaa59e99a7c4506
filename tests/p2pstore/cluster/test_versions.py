"""What a name stood for before: remembered as long as it is of use, and found by the beginning of a digest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pstore.cluster import records, versions
from p2pstore.cluster.records import ObjectRecord
from p2pstore.cluster.registry import Registry
from p2pstore.cluster.tags import move_tag
from p2pstore.cluster.versions import earlier_versions, forget_versions, history, look_up, the_one, unknown
from p2pstore.errors import AmbiguousDigest, DigestOfAnother, ObjectNotFound, VersionNotFound
from p2pstore.metadata.memory import MemoryServer
from p2pstore.metadata.store import Delete, Put
from p2pstore.objects.reference import parse_reference
from tests.p2pstore.cluster.registries import GOLD, PARTIAL, a, b, registry, server, thing

__all__ = ["a", "b", "server"]

ONE, TWO, THREE = "1" * 64, "12" * 32, "3" * 64


async def meant(of: Registry, text: str) -> str | None:
    found = await look_up(of, parse_reference(text))
    return found.manifest if found else None


async def earlier(of: Registry, name: str = "x") -> list[str]:
    return [record.manifest for record in await earlier_versions(of, name)]


@pytest.fixture
async def three(a: Registry, b: Registry) -> Registry:
    """Three versions of ``x``, of which ``b`` has the last."""
    for number, digest in enumerate((ONE, TWO)):
        await a.publish(thing("x", digest, created=number), force=True)
    await b.publish(thing("x", THREE, "b", 5.0), force=True)
    return a


async def test_versions_are_found_by_what_their_digests_begin_with(three: Registry) -> None:
    assert await earlier(three) == [TWO, ONE]
    assert await meant(three, "x") == THREE
    assert await meant(three, "x@sha256:3") == THREE
    assert await meant(three, "x@sha256:11") == ONE
    assert await meant(three, "x@12") == TWO
    assert await meant(three, f"x@sha256:{TWO}") == TWO
    assert await meant(three, "x@sha256:4") is None
    assert await meant(three, "y@sha256:1") is None


async def test_several_that_begin_so_are_named(three: Registry) -> None:
    with pytest.raises(AmbiguousDigest) as caught:
        await meant(three, "x@sha256:1")
    assert f"sha256:{ONE[:16]}, sha256:{TWO[:16]}" in str(caught.value)
    alike = [replace(thing("x", "a" * 63 + last)) for last in "01"]
    with pytest.raises(AmbiguousDigest) as caught:
        the_one(parse_reference("x@a"), alike)
    assert "a" * 63 + "0" in str(caught.value)
    assert the_one(parse_reference("x@a"), alike[:1] * 2) == alike[0]


async def test_what_is_unknown_is_told_apart(three: Registry) -> None:
    await three.publish(thing("other", "4" * 64))
    assert isinstance(await unknown(three, parse_reference("none@sha256:1")), ObjectNotFound)
    assert not isinstance(await unknown(three, parse_reference("none@sha256:1")), VersionNotFound)
    assert isinstance(await unknown(three, parse_reference("x@sha256:9999999999")), VersionNotFound)
    of_other = await unknown(three, parse_reference("x@sha256:4444444444"))
    assert isinstance(of_other, DigestOfAnother)
    assert "'other'" in str(of_other)
    assert isinstance(await unknown(three, parse_reference("x@sha256:44")), VersionNotFound), "chance is no proof"


async def test_another_object_is_found_however_many_there_are(three: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PAGE", 2)
    for number in range(7):
        await three.publish(thing(f"o/{number}", f"{number}" * 64))
    found = await unknown(three, parse_reference(f"x@{'6' * 64}"))
    assert isinstance(found, DigestOfAnother)
    assert found.fields["name"] == "o/6"


async def test_a_name_that_begins_alike_has_versions_of_its_own(a: Registry) -> None:
    for name in ("x", "x/y", "x-1"):
        await a.publish(thing(name, ONE))
        await a.publish(thing(name, TWO), force=True)
        assert await earlier(a, name) == [ONE]


async def test_what_comes_back_is_no_earlier_version(three: Registry) -> None:
    await three.publish(thing("x", ONE), force=True)
    assert await earlier(three) == [THREE, TWO]
    found = await three.find("x")
    assert found is not None
    assert (found.manifest, found.supersedes) == (ONE, THREE)


async def test_one_whose_holders_died_is_an_earlier_version_of_what_takes_its_name(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", ONE))
    await a.store.revoke(a.lease)
    await b.publish(thing("x", TWO, "b"))
    assert await earlier(b) == [ONE]


async def test_whoever_comes_back_to_a_name_that_is_taken_has_a_version_of_it(a: Registry, b: Registry) -> None:
    await b.publish(thing("x", TWO, "b"))
    assert await a.republish([(thing("x", ONE), GOLD)]) == ["x"]
    assert await a.republish([(thing("x", ONE), GOLD)]) == ["x"]
    assert await earlier(b) == [ONE]


async def test_what_nobody_holds_is_forgotten_with_the_name(three: Registry, b: Registry) -> None:
    await three.withdraw(ONE, ["x"])
    assert await earlier(b) == [TWO, ONE], "it is history"
    assert await b.withdraw(THREE, ["x"]) == ["x"]
    assert await earlier(b) == [TWO], "somebody has it"
    assert await meant(b, "x@12") == TWO
    await three.withdraw(TWO, ["x"])
    assert (await b.store.scan("")).items == ()


async def test_the_oldest_that_nobody_holds_are_forgotten(a: Registry, b: Registry, server: MemoryServer) -> None:
    await b.announce(f"{0:064x}", replace(PARTIAL, node="b"))
    for number in range(versions.KEPT_VERSIONS + 5):
        digest = f"{number:064x}"
        await a.publish(thing("x", digest, created=float(number)), force=True)
        await a.withdraw(f"{number - 1:064x}", ["x"])
    left = [int(digest, 16) for digest in await earlier(a)]
    assert left[-1] == 0, "it is held"
    assert len(left) in {versions.KEPT_VERSIONS + 1, versions.KEPT_VERSIONS + 2}
    assert left[:3] == [versions.KEPT_VERSIONS + 3, versions.KEPT_VERSIONS + 2, versions.KEPT_VERSIONS + 1]
    await forget_versions(a, "x")
    assert [int(digest, 16) for digest in await earlier(a)] == [0]


async def test_what_is_no_record_of_ours_is_no_version(three: Registry) -> None:
    key = records.version_key("x", "4" * 64)
    foreign: list[bytes] = [
        b"",
        b"[]",
        b"x" * 100_000,
        records.encode(thing("x", ONE)),
        records.encode(thing("y", ONE)),
    ]
    for value in foreign:
        await three.store.commit([Put(key, value)])
        assert await earlier(three) == [TWO, ONE]
        await three.store.commit([Delete(key)])


def test_a_record_of_before_has_superseded_nothing() -> None:
    known = thing("x", ONE)
    text = records.encode(known).replace(b',"supersedes":""', b"")
    assert b"supersedes" not in text
    assert records.decode(ObjectRecord, text) == known
    assert registry is not None


async def test_the_history_has_every_version_with_its_tags_and_holders(three: Registry, b: Registry) -> None:
    await move_tag(three, thing("x", ONE), "first", "a")
    await move_tag(three, thing("x", "9" * 64, created=0.5), "lost", "a")
    await three.withdraw(TWO, ["x"])
    await b.announce(ONE, replace(PARTIAL, node="b"))
    shown = await history(b, "x")
    assert [(v["manifest"], v["tags"], v["current"], v["superseded"]) for v in shown] == [
        (THREE, [], True, False),
        (TWO, [], False, False),
        ("9" * 64, ["lost"], False, False),
        (ONE, ["first"], False, True),
    ]
    assert [v["holders"] for v in shown] == [
        [{"node": "b", "state": "complete"}],
        [],
        [],
        [{"node": "a", "state": "complete"}, {"node": "b", "state": "partial"}],
    ]
    assert await history(b, "none") == []
    assert [(e.record.name, e.superseded) for e in (await b.listing("", limit=0, after=""))[0]] == [("x", 1)]


async def test_of_a_name_that_is_gone_versions_are_no_longer_superseded(three: Registry, b: Registry) -> None:
    await b.withdraw(THREE, ["x"])
    shown = await history(b, "x")
    assert [(v["manifest"], v["current"], v["superseded"], len(v["holders"])) for v in shown] == [
        (TWO, False, False, 1),
        (ONE, False, False, 1),
    ]
