"""Whoever listens to a replica misses nothing, and nothing is served before it is verified."""

from __future__ import annotations

import asyncio
import threading

from p2pstore import replica as module
from p2pstore.bitmap import Bitmap
from p2pstore.replica import Listener, News, Replica
from tests.p2pstore.samples import content, manifest_of

MANIFEST = manifest_of({"a": content(10), "b": b"", "c": content(6)}, 4)


async def made(have: Bitmap | None = None) -> Replica:
    return Replica(MANIFEST, have or Bitmap(MANIFEST.chunks), "replica", asyncio.get_running_loop())


async def test_servable_is_all_or_nothing() -> None:
    have = Bitmap(MANIFEST.chunks)
    replica = await made(have)
    assert replica.state == "partial"
    have.update([1, 2, 3])
    assert replica.servable(4, 10)
    assert replica.servable(13, 1)
    assert not replica.servable(3, 2)
    assert not replica.servable(10, 5)
    have.update(range(MANIFEST.chunks))
    assert replica.state == "complete"
    assert replica.servable(0, MANIFEST.size)


async def test_news_from_any_thread_reach_every_listener() -> None:
    replica = await made()
    with replica.listen() as one, replica.listen() as two:
        thread = threading.Thread(target=lambda: [replica.landed(range(n, n + 1)) for n in range(5)])
        thread.start()
        for listener in (one, two):
            assert [await asyncio.wait_for(listener.news.get(), 30) for _ in range(5)] == [
                News("have", range(n, n + 1)) for n in range(5)
            ]
        thread.join()
        replica.withdrawn()
        assert one.news.get_nowait() is None
    replica.landed(range(1))
    await asyncio.sleep(0)
    assert two.news.qsize() == 1


async def test_a_listener_and_the_bitmap_together_miss_no_chunk() -> None:
    have = Bitmap(MANIFEST.chunks)
    replica = await made(have)

    def land() -> None:
        for chunk in range(MANIFEST.chunks):
            have.add(chunk)
            replica.landed(range(chunk, chunk + 1))

    thread = threading.Thread(target=land)
    thread.start()
    with replica.listen() as listener:
        known = set(have)
        while len(known) < MANIFEST.chunks:
            news = await asyncio.wait_for(listener.news.get(), 30)
            assert news is not None
            known.update(news.run)
    thread.join()


async def test_a_listener_that_is_too_slow_is_told_that_it_is_over(monkeypatch: object) -> None:
    listener = Listener()
    for n in range(module.MAX_PENDING):
        listener.put(News("have", range(n, n + 1)))
    assert listener.news.qsize() == module.MAX_PENDING
    listener.put(News("have", range(1)))
    assert listener.news.qsize() == 1
    assert listener.news.get_nowait() is None


async def test_claims_are_told_and_kept_until_they_come_true() -> None:
    replica = await made()
    replica.claimed(range(3))
    with replica.listen() as listener:
        replica.claimed(range(3, 4))
        replica.landed(range(1, 3))
        assert replica.claims() == [0, 3]
        news = [await asyncio.wait_for(listener.news.get(), 30) for _ in range(2)]
        assert news == [News("want", range(3, 4)), News("have", range(1, 3))]
