"""Manifests are encoded once for all who ask, off the event loop, and not too many are kept."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from p2pstore.objects.manifest import Manifest
from p2pstore.peers.encoded import EncodedManifests
from tests.p2pstore.samples import content, manifest_of

WAIT = 30.0
MANIFESTS = [manifest_of({"": content(100, seed)}) for seed in range(3)]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each was encoded."""
    counted: Counter[str] = Counter()
    to_bytes = Manifest.to_bytes
    for manifest in MANIFESTS:
        manifest.prepare()

    def counting(self: Manifest) -> bytes:
        assert threading.current_thread() is not threading.main_thread(), "it holds up the event loop"
        counted[self.digest] += 1
        return to_bytes(self)

    monkeypatch.setattr(Manifest, "to_bytes", counting)
    return counted


async def test_of_many_who_ask_one_has_it_encoded(encoded: Counter[str]) -> None:
    """D15: 64 getters cost one encoding, in a thread."""
    kept, manifest = EncodedManifests(), MANIFESTS[0]
    answers = await asyncio.gather(*(kept.of(manifest.digest, manifest) for _ in range(64)))
    assert len(answers[0]) > 100
    assert set(answers) == {answers[0]}
    assert encoded == {manifest.digest: 1}


async def test_the_oldest_is_let_go(encoded: Counter[str]) -> None:
    one, two, three = MANIFESTS
    kept = EncodedManifests(len(await EncodedManifests().of(one.digest, one)) * 2)
    encoded.clear()
    for manifest in (one, two, one, three, one, two):
        await kept.of(manifest.digest, manifest)
    assert encoded == {one.digest: 1, two.digest: 2, three.digest: 1}


async def test_one_that_is_larger_than_all_that_may_be_kept_is_kept_alone(encoded: Counter[str]) -> None:
    one, two, _ = MANIFESTS
    kept = EncodedManifests(1)
    for manifest in (one, one, two, two):
        await kept.of(manifest.digest, manifest)
    assert encoded == {one.digest: 1, two.digest: 1}


async def test_whoever_is_cancelled_holds_nobody_up(encoded: Counter[str]) -> None:
    kept, manifest = EncodedManifests(), MANIFESTS[0]
    first = asyncio.create_task(kept.of(manifest.digest, manifest))
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.wait_for(kept.of(manifest.digest, manifest), WAIT)
    await asyncio.gather(first, return_exceptions=True)
