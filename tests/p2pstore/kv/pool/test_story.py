"""What happened to a key last."""

from __future__ import annotations

from p2pstore.kv.pool.story import MAX_EVENTS, MAX_KEY, Event, Story
from tests.p2pstore.kv.pool.pools import MIB, House, ident


def test_the_last_event_of_a_key_is_remembered() -> None:
    story = Story()
    story.tell("k", "t", Event("evicted", 1.0, b"", "no room"))
    story.tell("k", "t", Event("removed", 2.0, b"", ""))
    assert story.of("k", "t") == Event("removed", 2.0, b"", "")
    assert story.of("k", "other") is None


def test_the_oldest_is_forgotten() -> None:
    story = Story()
    for number in range(MAX_EVENTS + 1):
        story.tell("first" if number == 7 else str(number), "t", Event("evicted", float(number), b"", ""))
    assert story.of("0", "t") is None
    assert story.of(str(MAX_EVENTS), "t") is not None
    story.tell("x" * (MAX_KEY + 1), "t", Event("evicted", 0.0, b"", ""))
    assert story.of("x" * (MAX_KEY + 1), "t") is None


def test_a_refused_put_is_told() -> None:
    house = House()
    house.start(house.join("a"), ["k"], 65 * MIB)
    event = house.pool.story.of("k")
    assert event is not None
    assert (event.what, event.client, event.detail) == ("refused", ident("a"), "NO_SPACE")
