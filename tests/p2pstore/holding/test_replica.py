"""Whoever listens to a replica misses nothing, and nothing is served before it is verified."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack

from p2pstore.cluster.news import Shared
from p2pstore.holding import replica as module
from p2pstore.holding.replica import Listener, Replica
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.audience import MAX_LISTENERS
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
            told: list[range] = []
            while len(told) < 5:
                news = await listener.hear(30)
                assert isinstance(news, tuple)
                told += news
            assert told == [range(n, n + 1) for n in range(5)]
        thread.join()
        replica.landed(range(1, 2))
        await asyncio.sleep(0)
        replica.withdrawn()
        assert await one.hear(30) == (range(1, 2),)
        assert await one.hear(30) is None
    replica.landed(range(1))
    await asyncio.sleep(2 * module.GATHER_SECONDS)
    assert two.news.qsize() == 2


async def test_silence_is_heard_too() -> None:
    replica = await made()
    with replica.listen() as listener:
        assert await listener.hear(0.01) == module.NOTHING
        assert await listener.hear(0.01) == module.NOTHING
        assert listener.news.empty()


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
            news = await listener.hear(30)
            assert isinstance(news, tuple)
            known.update(chunk for run in news for chunk in run)
    thread.join()


async def test_a_listener_that_is_too_slow_is_told_that_it_is_over(monkeypatch: object) -> None:
    listener = Listener()
    for n in range(module.MAX_PENDING):
        listener.put((range(n, n + 1),))
    assert listener.news.qsize() == module.MAX_PENDING
    listener.put((range(1),))
    assert listener.news.qsize() == 1
    assert listener.news.get_nowait() is None


async def whole() -> Replica:
    return await made(Bitmap(MANIFEST.chunks, full=True))


def news_of(listener: Listener) -> list[object]:
    return [listener.news.get_nowait() for _ in range(listener.news.qsize())]


async def test_listeners_hear_whether_they_share_with_one_that_passes_on() -> None:
    replica = await whole()
    with replica.listen() as one:
        assert not one.shared
        with replica.listen(seeds=False) as keeps:
            assert keeps.shared
            assert not one.shared
            assert news_of(one) == []
            with replica.listen() as two:
                assert two.shared
                assert news_of(one) == [Shared(shared=True)]
            assert news_of(one) == [Shared(shared=False)]
            assert news_of(keeps) == []


async def test_each_chunk_is_offered_once() -> None:
    replica = await whole()
    with replica.listen() as one, replica.listen() as two:
        offered: list[int] = []
        for listener in (one, two, one, two):
            runs, over = replica.offers(listener.key, 2, [])
            offered += [chunk for run in runs for chunk in run]
            assert not over
        assert sorted(offered) == list(range(MANIFEST.chunks))


async def test_what_a_listener_that_left_was_offered_is_offered_again() -> None:
    replica = await whole()
    with replica.listen() as one:
        with replica.listen() as two:
            runs, _ = replica.offers(two.key, 16, [])
            assert runs
            assert replica.offers(one.key, 16, []) == ([], False)
        assert replica.offers(one.key, 16, []) == (runs, False)
        assert replica.offers(one.key, 16, runs) == ([], True)


async def test_whoever_comes_after_all_have_left_is_offered_everything_again() -> None:
    replica = await whole()
    for _ in range(2):
        with replica.listen() as one:
            runs, _ = replica.offers(one.key, 16, [])
            assert sum(len(run) for run in runs) == MANIFEST.chunks
            assert replica.offers(one.key, 16, runs) == ([], True)


async def test_who_passes_nothing_on_and_who_does_not_listen_are_offered_nothing() -> None:
    replica = await whole()
    with replica.listen(seeds=False) as keeps:
        assert replica.offers(keeps.key, 2, []) == ([], False)
    assert replica.offers(keeps.key, 2, []) == ([], False)
    partial = await made()
    with partial.listen() as one:
        assert partial.offers(one.key, 2, []) == ([], False)


async def test_a_crowd_is_bounded() -> None:
    replica = await whole()
    with ExitStack() as stack:
        for _ in range(MAX_LISTENERS):
            assert not replica.crowded
            stack.enter_context(replica.listen())
        assert replica.crowded
    assert not replica.crowded
