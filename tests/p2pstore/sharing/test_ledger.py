"""What processes owe one another, and what becomes of that when one goes."""

from __future__ import annotations

import random

import pytest

from p2pstore.sharing.duties import Duties
from p2pstore.sharing.ledger import BadNews, Ledger

LENGTHS = [16 << 20] * 12


def ledgers(count: int = 3) -> list[Ledger]:
    duties = Duties([range(12)] * count, LENGTHS)
    return [Ledger(duties, me) for me in range(count)]


def test_a_chunk_counts_when_its_bringer_has_answered() -> None:
    one, other = ledgers(2)
    chunk = min(other.owed[0])
    assert one.hand(chunk) == [1]
    other.offered(0, chunk)
    assert chunk in other.owed[0]
    assert one.copied(1, chunk), "its buffer is free"
    other.counts(0, chunk)
    assert chunk not in other.owed[0]


def test_a_buffer_is_free_when_all_have_copied_or_gone() -> None:
    one, *_ = ledgers(3)
    first, second = sorted(Duties([range(12)] * 3, LENGTHS).of(0))[:2]
    assert one.hand(first) == [1, 2]
    assert one.hand(second) == [1, 2]
    assert not one.copied(1, first)
    assert one.leave(2) == [first]
    assert one.copied(1, second)
    assert one.here == [1]
    third = sorted(Duties([range(12)] * 3, LENGTHS).of(0))[2]
    assert one.hand(third) == [1], "who has gone is not told"


def test_who_has_gone_leaves_what_does_not_count() -> None:
    one, *_ = ledgers(3)
    owed = sorted(one.owed[1])
    one.offered(1, owed[0])
    one.counts(1, owed[0])
    one.offered(1, owed[1])
    one.leave(1)
    assert one.lost == set(owed[1:])


def test_what_cannot_be_is_told() -> None:
    one, other, _ = ledgers(3)
    mine, theirs = min(other.owed[0]), min(one.owed[1])
    with pytest.raises(BadNews, match="was not to come"):
        one.offered(1, mine)
    one.offered(1, theirs)
    with pytest.raises(BadNews, match="was not to come"):
        one.offered(1, theirs)
    with pytest.raises(BadNews, match="was not copied"):
        one.counts(2, theirs)
    with pytest.raises(BadNews, match="was not there to be read"):
        one.copied(1, mine)
    one.hand(mine)
    one.copied(1, mine)
    with pytest.raises(BadNews, match="was not there to be read"):
        one.copied(1, mine)
    with pytest.raises(BadNews, match="it leaves what it wanted"):
        one.close(1)


@pytest.mark.parametrize("seed", range(30))
def test_however_it_goes_each_gets_all_or_knows_what_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(2, 5)
    wanted = [{chunk for chunk in range(12) if chance.random() < 0.7} for _ in range(count)]
    duties = Duties(wanted, LENGTHS)
    all_of_them = [Ledger(duties, me) for me in range(count)]
    dead: set[int] = set()
    has = [set(duties.of(me)) for me in range(count)]
    steps = [(me, chunk) for me in range(count) for chunk in duties.of(me)]
    chance.shuffle(steps)
    for me, chunk in steps:
        if len(dead) < count - 1 and chance.random() < 0.05:
            victim = chance.choice([each for each in range(count) if each not in dead])
            dead.add(victim)
            for each in range(count):
                if each not in dead:
                    all_of_them[each].leave(victim)
        if me in dead:
            continue
        for reader in all_of_them[me].hand(chunk):
            all_of_them[reader].offered(me, chunk)
            all_of_them[me].copied(reader, chunk)
            all_of_them[reader].counts(me, chunk)
            has[reader].add(chunk)
    alive = [each for each in range(count) if each not in dead]
    for me in alive:
        assert has[me] | all_of_them[me].lost == wanted[me]
        assert not has[me] & all_of_them[me].lost
        for other in alive:
            if other != me:
                all_of_them[me].close(other)
        assert all_of_them[me].through
