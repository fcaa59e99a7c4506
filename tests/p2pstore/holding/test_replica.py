"""Whoever listens to a replica misses nothing, and nothing is served before it is verified."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from p2pstore.cluster.news import Shared
from p2pstore.holding import replica as module
from p2pstore.holding.replica import Listener, Replica
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm import granter as granter_module
from p2pstore.swarm.audience import MAX_LISTENERS
from p2pstore.swarm.events import Done, Opened
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.pace import MIN_PLACES
from tests.p2pstore.samples import content, manifest_of

MANIFEST = manifest_of({"a": content(10), "b": b"", "c": content(6)}, 4)


async def made(have: Bitmap | None = None) -> Replica:
    return Replica(MANIFEST, have or Bitmap(MANIFEST.chunks), "replica", asyncio.get_running_loop())


async def told_next(listener: Listener) -> list[range]:
    """The chunks that a listener is told of next."""
    runs: list[range] = []
    for news in await listener.hear(30):
        assert isinstance(news, tuple)
        runs += news
    return runs


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
                told += await told_next(listener)
            assert told == [range(n, n + 1) for n in range(5)]
        thread.join()
        replica.landed(range(1, 2))
        await asyncio.sleep(0)
        replica.withdrawn()
        assert await one.hear(30) == [(range(1, 2),), None]
    replica.landed(range(1))
    await asyncio.sleep(2 * module.GATHER_SECONDS)
    assert len(two.news) == 2


async def test_silence_is_heard_too() -> None:
    replica = await made()
    with replica.listen() as listener:
        assert await listener.hear(0.01) == [module.NOTHING]
        assert await listener.hear(0.01) == [module.NOTHING]
        assert not len(listener.news)


async def test_news_break_a_silence_and_another_begins_with_them() -> None:
    listener = Listener()
    loop = asyncio.get_running_loop()
    try:
        hearing = asyncio.create_task(listener.hear(60))
        await asyncio.sleep(0)
        listener.put((range(1),))
        listener.put((range(2),))
        assert await asyncio.wait_for(hearing, 30) == [(range(1),), (range(2),)], "all that came, at once"
        began = loop.time()
        assert await asyncio.wait_for(listener.hear(0.05), 30) == [module.NOTHING], "sooner than the first would have"
        assert loop.time() - began >= 0.05 - 0.01
    finally:
        listener.close()


async def test_silence_counts_from_the_news_and_not_from_the_silence_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = Listener()
    loop = asyncio.get_running_loop()
    now, later = loop.time, [0.0]
    monkeypatch.setattr(loop, "time", lambda: now() + later[0])
    try:
        hearing = asyncio.create_task(listener.hear(600))
        await asyncio.sleep(0)
        later[0] += 400
        listener.put((range(3),))
        assert await asyncio.wait_for(hearing, 30) == [(range(3),)]
        hearing = asyncio.create_task(listener.hear(600))
        await asyncio.sleep(0)
        later[0] += 300  # the timer of before has ended
        for _ in range(10):
            await asyncio.sleep(0)
        assert not hearing.done()
        later[0] += 400
        assert await asyncio.wait_for(hearing, 30) == [module.NOTHING]
    finally:
        listener.close()


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
            known.update(chunk for run in await told_next(listener) for chunk in run)
    thread.join()


async def test_a_listener_that_is_too_slow_is_told_that_it_is_over(monkeypatch: object) -> None:
    listener = Listener()
    for n in range(module.MAX_PENDING):
        listener.put((range(n, n + 1),))
    assert len(listener.news) == module.MAX_PENDING
    listener.put((range(1),))
    assert len(listener.news) == 1
    assert await listener.hear(30) == [None]


async def whole() -> Replica:
    return await made(Bitmap(MANIFEST.chunks, full=True))


def news_of(listener: Listener) -> list[object]:
    return list(listener.news.drain())


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


def grants_of(listener: Listener) -> list[Grant]:
    return [item for item in news_of(listener) if isinstance(item, Grant)]


async def test_each_chunk_is_named_once() -> None:
    replica = await whole()
    with replica.listen() as one, replica.listen() as two:
        assert grants_of(one) == grants_of(two) == [], "not before they are heard"
        assert replica.speaks(one.key)
        assert replica.speaks(two.key)
        named: list[int] = []
        for listener in (one, two) * 4:
            for grant in grants_of(listener):
                named += grant.run or ()
                replica.said(listener.key, Done("", grant.number, 0, full=False))
        assert sorted(named) == list(range(MANIFEST.chunks))


async def test_what_a_listener_that_left_was_named_is_named_again() -> None:
    replica = await whole()
    with replica.listen() as one, replica.listen() as two, replica.listen():
        replica.speaks(two.key)
        (lost,) = grants_of(two)
        replica.speaks(one.key)
        (grant,) = grants_of(one)
        replica.hushed(two.key)
        replica.said(one.key, Done("", grant.number, 0, full=False))
        assert [again.run for again in grants_of(one)] == [lost.run]


async def test_news_are_told_at_once_where_a_place_waits_for_them() -> None:
    replica = await made()
    with replica.listen() as one:
        assert replica.speaks(one.key)
        assert news_of(one) == []
        replica._gather(range(1))
        told, grant = news_of(one)
        assert told == (range(1),)
        assert isinstance(grant, Grant), "the news come first, so that it knows what there is"


async def test_who_takes_news_at_once_is_called_once_for_a_grant_and_what_goes_along() -> None:
    replica = await made()
    with replica.listen() as one:
        heard: list[list[object]] = []
        one.on_news = lambda: heard.append(news_of(one))
        assert replica.speaks(one.key)
        replica._gather(range(1))
        ((told, grant),) = heard
        assert told == (range(1),)
        assert isinstance(grant, Grant)
        replica.withdrawn()
        assert heard[1:] == [[None]]


async def test_news_wait_for_a_grant_and_go_along_with_it() -> None:
    replica = await made()
    with replica.listen() as one, replica.listen(grants=False) as earlier:
        assert replica.speaks(one.key)
        replica._gather(range(1))
        _, grant = news_of(one)
        assert isinstance(grant, Grant)
        replica._gather(range(1, 2))
        replica._gather(range(2, 3))
        assert news_of(one) == [], "it fetches, and has no use for them yet"
        replica.said(one.key, Done("", grant.number, 0, full=False))
        told, another = news_of(one)
        assert told == (range(1, 2), range(2, 3))
        assert isinstance(another, Grant)
        replica._gather(range(3, 4))
        assert await asyncio.wait_for(one.hear(30), 30) == [(range(3, 4),)], "some time later without a grant"
        assert [run for news in news_of(earlier) for run in news] == [range(n, n + 1) for n in range(4)]  # type: ignore[attr-defined]


async def test_what_is_withdrawn_tells_of_all_first() -> None:
    replica = await made()
    with replica.listen() as one:
        assert replica.speaks(one.key)
        replica._gather(range(1))
        news_of(one)
        replica._gather(range(1, 2))
        replica.withdrawn("gone")
        assert news_of(one) == [(range(1, 2),), None]


async def test_one_that_hangs_keeps_the_others_waiting_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granter_module, "FIRST_PATIENCE_SECONDS", 0.05)
    replica = await made(Bitmap(MANIFEST.chunks))
    replica.have.add(0)
    with ExitStack() as stack:
        listeners = [stack.enter_context(replica.listen()) for _ in range(MIN_PLACES + 1)]
        for listener in listeners:
            replica.speaks(listener.key)
        assert [len(grants_of(listener)) for listener in listeners] == [1] * MIN_PLACES + [0]
        (grant,) = await asyncio.wait_for(listeners[-1].hear(30), 30)
        assert isinstance(grant, Grant)
    assert replica._audience.granter.under_way == 0


async def test_one_timer_serves_many_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = await made(Bitmap(MANIFEST.chunks))
    replica.have.add(0)
    timers: list[float] = []
    call_at = replica._loop.call_at

    def counted(when: float, callback: Callable[[], None], *rest: object, **named: object) -> asyncio.TimerHandle:
        if callback == replica._look_again:
            timers.append(when)
        return call_at(when, callback, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(replica._loop, "call_at", counted)
    with ExitStack() as stack:
        listeners = [stack.enter_context(replica.listen()) for _ in range(MIN_PLACES + 1)]
        for listener in listeners:
            replica.speaks(listener.key)
        for _ in range(20):
            for listener in listeners:
                for grant in grants_of(listener):
                    replica.said(listener.key, Done("", grant.number, 0, full=False))
        # Its time may come nearer once it is known how long fetches take; of each grant it goes further away.
        assert 1 <= len(timers) <= 3
    monkeypatch.undo()


async def test_a_timer_that_ends_too_early_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granter_module, "FIRST_PATIENCE_SECONDS", 0.05)
    replica = await made(Bitmap(MANIFEST.chunks))
    replica.have.add(0)
    with ExitStack() as stack:
        listeners = [stack.enter_context(replica.listen()) for _ in range(MIN_PLACES + 1)]
        for listener in listeners:
            replica.speaks(listener.key)
        (first,) = grants_of(listeners[0])
        replica.said(listeners[0].key, Done("", first.number, 0, full=True))
        # That made room for the last one; the three that have a place now hang, and the first is open again.
        assert len(grants_of(listeners[-1])) == 1
        replica.said(listeners[0].key, Opened("", 0))
        (grant,) = await asyncio.wait_for(listeners[0].hear(30), 30)
        assert isinstance(grant, Grant)


async def test_a_crowd_is_bounded() -> None:
    replica = await whole()
    with ExitStack() as stack:
        for _ in range(MAX_LISTENERS):
            assert not replica.crowded
            stack.enter_context(replica.listen())
        assert replica.crowded
    assert not replica.crowded
