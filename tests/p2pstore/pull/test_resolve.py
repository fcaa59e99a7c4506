"""What a name stands for, by the metadata store, by peers, or by both."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from p2pstore.cluster.records import NodeRecord, ObjectRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry
from p2pstore.errors import (
    AmbiguousDigest,
    HolderGone,
    MetadataUnavailable,
    MooncakeError,
    ObjectNotFound,
    PeerHasNot,
    PeerUnreachable,
    VersionNotFound,
)
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.objects.reference import Reference
from p2pstore.pull.resolve import resolve
from tests.p2pstore.samples import manifest_of, record_of

MINE = record_of("n", manifest_of({"": b"mine"}))
OTHER = record_of("n", manifest_of({"": b"other"}))


def node(name: str) -> NodeRecord:
    return NodeRecord(node=name, control=f"{name}:1", segment=f"{name}:2", data_port=3, started=1.0)


@dataclass
class FakeRegistry:
    """A metadata store that knows one record and its holders, or does not answer."""

    record: ObjectRecord | None = None
    holders: dict[str, str] = field(default_factory=dict)
    down: bool = False
    node: str = "me"
    gone: MooncakeError | None = None

    async def find(self, name: str) -> ObjectRecord | None:
        if self.down:
            raise MetadataUnavailable(url="etcd://x", detail="connection refused")
        return self.record

    async def missing(self, name: str) -> MooncakeError:
        return self.gone or ObjectNotFound(name=name)

    async def replicas(self, _: str) -> dict[str, Any]:
        return {n: ReplicaRecord(n, state, "replica") for n, state in self.holders.items()}  # type: ignore[arg-type]

    async def nodes(self, names: list[str]) -> dict[str, NodeRecord]:
        return {n: node(n) for n in names}


@dataclass
class FakeClient:
    """Peers that answer with a record, or a fault."""

    answers: dict[str, ObjectRecord | MooncakeError]

    async def name(self, control: str, _: str) -> ObjectRecord:
        answer = self.answers[control]
        if isinstance(answer, MooncakeError):
            raise answer
        return answer

    async def versions(self, control: str, name: str) -> list[ObjectRecord]:
        return [await self.name(control, name)]


async def asked(registry: FakeRegistry, answers: dict[str, ObjectRecord | MooncakeError]) -> Any:
    return await resolve(registry, FakeClient(answers), Reference("n"), list(answers))  # type: ignore[arg-type]


async def test_holders_that_have_it_all_come_first_and_this_node_is_none() -> None:
    found = await asked(FakeRegistry(MINE, {"a": "partial", "b": "complete", "me": "complete"}), {})
    assert found.record == MINE
    assert found.controls == (("b", "b:1"), ("a", "a:1"))
    assert found.watched


async def test_a_peer_that_the_user_names_is_asked_first_if_it_has_the_same_content() -> None:
    registry = FakeRegistry(MINE, {"a": "complete"})
    assert (await asked(registry, {"p:9": MINE})).controls == (("p:9", "p:9"), ("a", "a:1"))
    assert (await asked(registry, {"p:9": OTHER})).controls == (("a", "a:1"),)


async def test_peers_alone_will_do() -> None:
    for registry in (FakeRegistry(), FakeRegistry(down=True)):
        found = await asked(registry, {"p:9": PeerUnreachable(peer="p:9", detail="refused"), "q:9": OTHER})
        assert (found.record, found.controls, found.watched) == (OTHER, (("q:9", "q:9"),), False)


async def test_what_nobody_knows() -> None:
    with pytest.raises(ObjectNotFound):
        await asked(FakeRegistry(), {})
    with pytest.raises(ObjectNotFound):
        await asked(FakeRegistry(), {"p:9": PeerHasNot(peer="p:9", what="n")})


async def test_the_fault_that_stood_in_the_way_is_told() -> None:
    with pytest.raises(MetadataUnavailable):
        await asked(FakeRegistry(down=True), {})
    with pytest.raises(PeerUnreachable):
        await asked(FakeRegistry(down=True), {"p:9": PeerUnreachable(peer="p:9", detail="refused")})


async def test_of_a_name_whose_holders_died_it_is_told() -> None:
    gone = HolderGone(name="n", creator="a", noticed="today")
    with pytest.raises(HolderGone):
        await resolve(FakeRegistry(gone=gone), FakeClient({}), Reference("n"), ())  # type: ignore[arg-type]


async def versions_of(*held: ObjectRecord, server: MemoryServer) -> Registry:
    """A registry on a store in which each of these stood for its name, one after the other."""
    made = Registry(MemoryStore(server), "me")
    made.lease = await made.store.grant(60)
    for record in held:
        await made.publish(record, force=True)
    return made


async def test_a_version_is_found_by_its_digest_in_the_metadata_store() -> None:
    registry = await versions_of(OTHER, MINE, server=MemoryServer())
    for wanted in (OTHER, MINE):
        found = await resolve(registry, FakeClient({}), Reference("n", wanted.manifest[:12]), ())  # type: ignore[arg-type]
        assert (found.record.manifest, found.watched) == (wanted.manifest, True)
    with pytest.raises(VersionNotFound):
        await resolve(registry, FakeClient({}), Reference("n", "0" * 12), ())  # type: ignore[arg-type]


async def test_a_version_is_found_at_peers_alone() -> None:
    registry = FakeRegistry(down=True)
    client = FakeClient({"p:9": PeerHasNot(peer="p:9", what="n"), "q:9": MINE, "r:9": OTHER})
    wanted = Reference("n", OTHER.manifest[:12])
    found = await resolve(registry, client, wanted, list(client.answers))  # type: ignore[arg-type]
    assert (found.record, found.controls, found.watched) == (OTHER, (("r:9", "r:9"),), False)
    with pytest.raises(PeerHasNot, match=f"n@sha256:{OTHER.manifest[:12]}"):
        await resolve(registry, client, wanted, ["q:9"])  # type: ignore[arg-type]


async def test_peers_may_disagree_about_what_is_meant() -> None:
    first, second = (replace(MINE, manifest=f"ab{n}" + MINE.manifest[3:]) for n in "01")
    client = FakeClient({"p:9": first, "q:9": second})
    with pytest.raises(AmbiguousDigest):
        await resolve(FakeRegistry(down=True), client, Reference("n", "ab"), list(client.answers))  # type: ignore[arg-type]
