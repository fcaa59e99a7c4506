"""What a getter says reaches the granter as it was meant."""

from __future__ import annotations

import random

from p2pstore.swarm.events import Declined, Done, Opened
from p2pstore.swarm.granter import Granter
from p2pstore.swarm.unsent import Unsent
from p2pstore.swarm.words import say


def test_each_word() -> None:
    granter = Granter(random.Random(1), lambda: Unsent([1]))
    granter.join("a", seeds=True, origin=False)
    (first,) = granter.grants(0.0)
    say(granter, "a", Declined("", first.number, 3, full=True), 0.1)
    assert granter.grants(0.1) == []
    say(granter, "a", Opened("", 2), 0.2)
    (second,) = granter.grants(0.2)
    say(granter, "a", Done("", second.number, 2, full=False), 0.3)
    assert granter.under_way == 0
    assert len(granter.grants(0.3)) == 1
