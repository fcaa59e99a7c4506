"""Values in the order in which they go."""

from __future__ import annotations

import random

from p2pstore.kv.pool.ages import CHUNK, Ages, Work
from p2pstore.kv.pool.entries import GONE, Entry, Held, Tenant
from p2pstore.kv.pool.segments import NOWHERE

TENANT = Tenant("t")


def entry(number: int, until: float) -> Entry:
    made = Entry(str(number), TENANT, 1, b"", Held(NOWHERE, 0))
    made.until = until
    return made


def order(ages: Ages, now: float) -> list[str]:
    found = []
    while True:
        got = ages.oldest(now, Work(10_000))
        if got is None:
            return found
        found.append(got.key)


def test_the_oldest_comes_first_however_they_came() -> None:
    ages = Ages()
    numbers = list(range(3000))
    random.Random(3).shuffle(numbers)
    for number in numbers:
        ages.add(entry(number, number / 100))
    assert order(ages, 1000.0) == [str(number) for number in range(3000)]
    assert ages.held == 0


def test_those_that_come_together_go_in_their_order() -> None:
    ages = Ages()
    keys = []
    for number in range(40):
        some = [entry(1000 * number + each, number / 2) for each in range(number * 20 + 1)]
        keys += [each.key for each in some]
        ages.add_all(some, number / 2)
    assert ages.held == len(keys)
    assert max(len(chunk) for chunk in ages.walk()._chunks) == CHUNK
    assert order(ages, 1000.0) == keys


def test_what_was_used_since_comes_later() -> None:
    ages = Ages()
    entries = [entry(number, float(number)) for number in range(2000)]
    for each in entries:
        ages.add(each)
    entries[3].until = 1500.5
    first = ages.oldest(5000.0, Work(10_000))
    assert first is entries[0]
    entries[5].until = 1600.5
    found = order(ages, 5000.0)
    assert found[:3] == ["1", "2", "4"]
    assert found.index("3") == found.index("1500") + 1
    assert found.index("5") == found.index("1600") + 1


def test_nothing_comes_before_its_time() -> None:
    ages = Ages()
    ages.add(entry(1, 20.0))
    ages.add(entry(2, 10.0))
    assert order(ages, 5.0) == []
    assert order(ages, 15.0) == ["2"]
    assert order(ages, 25.0) == ["1"]


def test_a_step_ends_with_its_work() -> None:
    ages = Ages()
    entries = [entry(number, 0.0) for number in range(20 * CHUNK)]
    for each in entries:
        ages.add(each)
        each.until = 100.0  # all of them were used since
    steps = 0
    while True:
        work = Work(CHUNK)
        assert ages.oldest(50.0, work) is None
        steps += 1
        if work.left > 0:
            break
    assert steps > 4
    assert len(order(ages, 200.0)) == 20 * CHUNK


def test_those_that_are_gone_take_no_memory_for_long() -> None:
    ages = Ages()
    entries = [entry(number, float(number)) for number in range(10 * CHUNK)]
    for each in entries:
        ages.add(each)
    for each in entries[: 9 * CHUNK]:
        each.place = GONE
        ages.forget()
    for _ in range(1000):
        if not ages.compact():
            break
    assert ages.held - ages.gone == CHUNK
    assert ages.gone <= CHUNK
    assert [each.key for each in ages] == [str(number) for number in range(9 * CHUNK, 10 * CHUNK)]


def test_a_walk_meets_all_that_stay_though_they_move() -> None:
    ages = Ages()
    entries = [entry(number, float(number)) for number in range(4 * CHUNK)]
    for each in entries:
        ages.add(each)
    walk = ages.walk()
    met = {each.key for each in walk.step(10)}
    for each in entries[:CHUNK]:
        each.until = 10_000.0
    while (got := ages.oldest(float(2 * CHUNK), Work(100_000))) is not None:
        got.place = GONE
    while not walk.ended:
        met |= {each.key for each in walk.step(100)}
    ages.stop(walk)
    assert met >= {each.key for each in entries if each.place is not GONE}
