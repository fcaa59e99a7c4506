"""The missing chunks by spread agree with a plain dictionary, whatever is taken, put back and learnt."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.rarity import RUN_BYTES, RUN_CHUNKS, Missing

SIZES = st.sampled_from([1, RUN_BYTES // 4, RUN_BYTES // 2, RUN_BYTES, 2 * RUN_BYTES])


class AgainstADictionary(RuleBasedStateMachine):
    """``spread`` holds the missing chunks' spread; ``others`` that of those which are taken or had."""

    @initialize(lengths=st.lists(SIZES, max_size=20), seed=st.integers(0, 9), data=st.data())
    def begin(self, lengths: list[int], seed: int, data: st.DataObject) -> None:
        self.lengths = lengths
        self.spread = dict.fromkeys(range(len(lengths)), 0)
        self.gone = set(data.draw(self.some())) if lengths else set()
        self.missing = Missing((c for c in self.spread if c not in self.gone), lengths, random.Random(seed))

    def some(self) -> st.SearchStrategy[list[int]]:
        chunks = st.integers(0, max(0, len(self.lengths) - 1))
        return st.lists(chunks, max_size=min(6, len(self.lengths)), unique=True)

    @property
    def there(self) -> set[int]:
        return set(self.spread) - self.gone

    @rule(data=st.data(), by=st.sampled_from([1, -1]))
    def spreads(self, data: st.DataObject, by: int) -> None:
        chunks = [c for c in data.draw(self.some()) if self.spread[c] + by >= 0]
        self.missing.spread(chunks, by)
        for chunk in chunks:
            self.spread[chunk] += by

    @rule(data=st.data())
    def gains(self, data: st.DataObject) -> None:
        have, had = Bitmap(len(self.lengths)), Bitmap(len(self.lengths))
        have.update(data.draw(self.some()))
        had.update(set(data.draw(self.some())) & self.gone)
        chunks = data.draw(self.some())
        fresh = [c for c in chunks if c not in have]
        assert self.missing.gain(chunks, have, had) == [c for c in fresh if c not in had]
        assert all(c in have for c in chunks)
        for chunk in fresh:
            self.spread[chunk] += 1

    @rule(data=st.data(), back=st.booleans())
    def put_back_or_discard(self, data: st.DataObject, back: bool) -> None:
        for chunk in data.draw(self.some()):
            if back:
                self.missing.put_back(chunk)
                self.gone.discard(chunk)
            else:
                self.missing.discard(chunk)
                self.gone.add(chunk)

    @rule()
    def rarest(self) -> None:
        chunk = self.missing.rarest()
        rarest = min((self.spread[c] for c in self.there), default=None)
        if rarest is None:
            assert chunk is None
        else:
            assert chunk in self.there
            assert self.spread[chunk] == rarest

    @rule(count=st.integers(1, 8))
    def some_rarest(self, count: int) -> None:
        chunks = self.missing.some_rarest(count)
        rarest = min((self.spread[c] for c in self.there), default=None)
        assert len(chunks) == (0 if rarest is None else count)
        assert self.there.issuperset(chunks)
        assert all(self.spread[c] == rarest for c in chunks)

    @rule(data=st.data(), count=st.integers(1, 8))
    def draw(self, data: st.DataObject, count: int) -> None:
        candidates = data.draw(self.some())
        live = set(candidates) & self.there
        chunk = self.missing.draw(candidates, count)
        assert chunk in live if live else chunk is None
        assert live <= set(candidates), "only what is not missing is forgotten"
        assert self.missing.any_of(candidates) == bool(live)
        assert live <= set(candidates)

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        have = set(data.draw(self.some()))
        if not have & self.there:
            return
        first = data.draw(st.sampled_from(sorted(have & self.there)))
        bitmap = Bitmap(len(self.lengths))
        bitmap.update(have)
        run = self.missing.take_run(first, bitmap)
        assert first in run
        assert have & self.there >= set(run)
        assert len(run) == 1 or sum(self.lengths[c] for c in run) <= RUN_BYTES
        self.gone.update(run)

    @rule(data=st.data())
    def take_new(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, len(self.lengths)))
        asked = range(first, data.draw(st.integers(first, len(self.lengths))))
        new = [c for c in asked if c in self.there and not self.spread[c]]
        run = self.missing.take_new(asked)
        assert list(run) == new[: len(run)], "the first of them, with no gap"
        assert bool(run) == bool(new)
        assert run.stop not in new, "and all that follow it"
        self.gone.update(run)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "missing"):
            assert bool(self.missing) == bool(self.there)
            assert [c in self.missing for c in self.spread] == [c in self.there for c in self.spread]


TestAgainstADictionary = AgainstADictionary.TestCase
TestAgainstADictionary.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


def test_what_no_getter_has_is_drawn_and_taken_alone_where_that_is_asked() -> None:
    made = Missing(range(6), [1] * 6, random.Random(1))
    made.gain([2, 3], Bitmap(6), Bitmap(6))
    assert made.draw_new([2, 3, 4], 1) == 4, "however few are drawn"
    assert made.draw_new([2, 3], 16) is None
    whole = Bitmap(6, full=True)
    assert made.take_run(0, whole, among={0, 1, 2, 3, 5}) == range(2)
    assert made.take_run(5, whole, among={5}) == range(5, 6)
    assert made.take_run(3, whole) == range(2, 5)


def test_a_run_has_a_bounded_number_of_chunks() -> None:
    count = 3 * RUN_CHUNKS
    missing = Missing(range(count), [1] * count, random.Random(1))
    assert len(missing.take_run(0, Bitmap(count, full=True))) == RUN_CHUNKS
