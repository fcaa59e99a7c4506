"""Which prefixes are copied, and how often."""

from __future__ import annotations

import pytest

from p2pstore.serving import hot as module
from p2pstore.serving.events import Kind, Replicate
from p2pstore.serving.hot import HOT_HITS, HOT_SECONDS, HotPrefixes
from p2pstore.serving.prefixes import Prefixes
from p2pstore.serving.roster import Roster

BLOCKS = (1, 2, 3)


def cluster(holders: int) -> tuple[Prefixes, Roster]:
    prefixes, roster = Prefixes(), Roster()
    for number in range(4):
        roster.add(f"p{number}", Kind.PREFILL, 0.0)
        if number < holders:
            prefixes.stored(number, BLOCKS[:2])
    return prefixes, roster


def asked(hot: HotPrefixes, prefixes: Prefixes, roster: Roster, times: int) -> None:
    for _ in range(times):
        hot.count(BLOCKS, prefixes.match(BLOCKS, roster.members))


@pytest.mark.parametrize(("holders", "times", "copied"), [(1, 1, 1), (1, 0.5, 0), (2, 1, 0), (2, 2, 1), (4, 9, 0)])
def test_what_is_asked_for_often_for_each_holder_is_copied(holders: int, times: float, copied: int) -> None:
    prefixes, roster = cluster(holders)
    hot = HotPrefixes()
    asked(hot, prefixes, roster, int(times * HOT_HITS))
    assert hot.copies(prefixes, roster, HOT_SECONDS / 2) == [], "not before the time is over"
    found = hot.copies(prefixes, roster, HOT_SECONDS)
    assert found == [Replicate(BLOCKS[:2], "p0", f"p{holders}")][:copied]
    assert hot.copies(prefixes, roster, 2 * HOT_SECONDS) == [], "the count began anew"


def test_what_nobody_holds_any_more_cannot_be_copied() -> None:
    prefixes, roster = cluster(1)
    hot = HotPrefixes()
    asked(hot, prefixes, roster, HOT_HITS)
    prefixes.removed(0, (2,))
    assert hot.copies(prefixes, roster, HOT_SECONDS) == []


def test_it_counts_no_more_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COUNTED", 1)
    prefixes, roster = cluster(1)
    prefixes.stored(0, (7,))
    hot = HotPrefixes()
    asked(hot, prefixes, roster, HOT_HITS)
    for _ in range(HOT_HITS):
        hot.count((7,), prefixes.match((7,), roster.members))
    assert [each.blocks for each in hot.copies(prefixes, roster, HOT_SECONDS)] == [BLOCKS[:2]]
