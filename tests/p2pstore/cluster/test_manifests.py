"""A manifest is asked of its holders, and is had from the first who sends a good one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from p2pstore.cluster import manifests
from p2pstore.cluster.manifests import first_that_answers
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.errors import BadManifest, PeerHasNot, PeerUnreachable, SecretRefused
from tests.p2pstore.cluster.hostile_peer import answer, hostile
from tests.p2pstore.pull.discovering import MANIFEST, WAIT, World, world
from tests.p2pstore.samples import manifest_of

__all__ = ["world"]


async def ask(client: PeerClient, *controls: str) -> tuple[Any, list[str]]:
    notes: list[str] = []
    try:
        return await first_that_answers(client, [(c, c) for c in controls], MANIFEST.digest, notes.append), notes
    except Exception as error:
        return error, notes


async def test_a_manifest_from_whoever_sends_a_good_one(world: World) -> None:
    owner = await world.holder("a")
    other = manifest_of({"": b"x"})
    async with (
        hostile(answer(other.to_bytes())) as liar,
        hostile(answer(b"", "403 Forbidden")) as refuser,
        hostile(b"\0") as garbage,
    ):
        found, notes = await ask(world.client, liar, refuser, garbage, "127.0.0.1:1", owner.record.control)
        assert found == MANIFEST
        assert len(notes) == 4
        assert isinstance((await ask(world.client, liar))[0], BadManifest)
        assert isinstance((await ask(world.client, refuser))[0], SecretRefused)
    assert isinstance((await ask(world.client))[0], PeerUnreachable)


async def test_a_silent_holder_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "HEDGE_SECONDS", 0.01)
    owner = await world.holder("a")
    async with hostile(b"", stay=True) as silent:
        found, _ = await asyncio.wait_for(ask(world.client, silent, owner.record.control), WAIT)
        assert found == MANIFEST


async def test_nobody_has_it(world: World) -> None:
    owner = await world.holder("a")
    await owner.holdings.remove(owner.holdings.named("n")[0])
    assert isinstance((await ask(world.client, owner.record.control))[0], PeerHasNot)
