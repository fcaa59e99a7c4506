"""Who follows is a random sample, whoever came first."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from p2pstore.swarm.following import displaces

MOST = 16


def followed(count: int, chance: random.Random) -> list[int]:
    """Whom one follows after so many came, one after the other."""
    places: list[int] = []
    for number in range(count):
        if len(places) < MOST:
            places.append(number)
        elif displaces(number + 1, MOST, chance):
            places[chance.randrange(MOST)] = number
    return places


def test_as_long_as_there_are_places_all_are_followed() -> None:
    assert followed(MOST, random.Random(1)) == list(range(MOST))


@pytest.mark.parametrize("count", [17, 32, 200])
def test_the_first_to_come_are_followed_no_more_than_the_last(count: int) -> None:
    chance = random.Random(count)
    times = Counter(number for _ in range(1000) for number in followed(count, chance))
    expected = 1000 * MOST / count
    for part in (range(MOST), range(count - MOST, count), range(count)):
        mean = sum(times[number] for number in part) / len(part)
        assert 0.9 * expected < mean < 1.1 * expected
