"""What a holder tells reaches the pull as its own, and it is spoken to on the connection on which it hears."""

from __future__ import annotations

from typing import Any

import pytest

from p2pstore.cluster.news import Availability, Queued, Shared
from p2pstore.cluster.records import NodeRecord
from p2pstore.objects.bitmap import Bitmap
from p2pstore.pull.feed import Feed
from p2pstore.swarm.gateway import Claim, Rank
from p2pstore.swarm.granter import Grant

RECORD = NodeRecord("a", "127.0.0.1:1", "127.0.0.1:2", 3)


class Noted:
    """In place of a pull and a speaker: what they were told, in its order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self.calls.append((name, *args, *options.items()))


def say(_: bytes) -> bool:
    return True


def feed(noted: Noted) -> Feed:
    return Feed(noted, noted, RECORD, ("tcp",), 2, noted.answers, noted.queues)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("grants", "says", "spoken"),
    [
        (True, say, [("begin_over", "a", say)]),
        (True, None, [("begin", "a", "127.0.0.1:1", "key")]),
        (False, say, []),
    ],
)
def test_what_it_has_and_how_it_is_spoken_to(grants: bool, says: Any, spoken: list[Any]) -> None:
    noted = Noted()
    one = feed(noted)
    one.hear(Availability(77, Bitmap(3), "secret", "key", shared=True, grants=grants), says)
    one.hear([1, 2])
    answered, *between, added, has = noted.calls
    assert answered == ("answers",)
    assert between == spoken
    name, source, _, away, *options = added
    assert (name, source.node, source.address, source.transports, source.peer.key, away, options) == (
        *("add", "a", 77, ("tcp",), "secret", 2),
        [("shared", True), ("grants", grants)],
    )
    assert has == ("has", "a", [1, 2], ("grants", grants))


@pytest.mark.parametrize(
    ("told", "call"),
    [
        (Grant("", 5, range(1, 2), 3, 0.5), ("granted", Grant("a", 5, range(1, 2), 3, 0.5))),
        (Claim(0, 1, Rank.CANDIDATE, 5), ("claims", "a", Claim(0, 1, Rank.CANDIDATE, 5))),
        (Shared(True), ("shared", "a", True)),
        (Queued(3), ("queues",)),
    ],
)
def test_later_news(told: Any, call: tuple[Any, ...]) -> None:
    noted = Noted()
    feed(noted).hear(told)
    assert noted.calls == [call]
