"""What an origin offers: each chunk to one getter, and nothing is forgotten when getters leave."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from p2pstore.swarm.dealing import MAX_GETTERS, MAX_OFFERS, PATIENCE, Dealing
from p2pstore.swarm.rarity import RUN_BYTES, RUN_CHUNKS

KIB, MIB = 1 << 10, 1 << 20
GETTERS = [f"getter {n}" for n in range(4)]


class DealingMachine(RuleBasedStateMachine):
    """Getters ask, fetch and leave in any order; each chunk is in one hand at most, and all are offered in the end."""

    @initialize(lengths=st.lists(st.sampled_from([1, 300 * KIB, MIB, 3 * MIB]), max_size=30), start=st.integers(0, 99))
    def begin(self, lengths: list[int], start: int) -> None:
        self.lengths = lengths
        self.offers = Dealing(lengths, start)
        self.held: dict[str, list[range]] = {}
        self.done: set[int] = set()

    @rule(getter=st.sampled_from(GETTERS), count=st.integers(-1, 40), data=st.data())
    def asks(self, getter: str, count: int, data: st.DataObject) -> None:
        held = self.held.setdefault(getter, [])
        done = [run for run in held if data.draw(st.booleans())]
        runs = self.offers.ask(getter, count, done)
        self.held[getter] = [run for run in held if run not in done] + runs
        self.done.update(chunk for run in done for chunk in run)
        assert len(runs) <= max(0, count)
        assert len(self.held[getter]) <= MAX_OFFERS
        for run in runs:
            assert len(run) == 1 or sum(self.lengths[c] for c in run) <= RUN_BYTES
        self.check()

    @rule(getter=st.sampled_from(GETTERS), data=st.data())
    def takes_unasked(self, getter: str, data: st.DataObject) -> None:
        if not self.lengths:
            return
        first = data.draw(st.integers(0, len(self.lengths) - 1))
        run = range(first, data.draw(st.integers(first + 1, len(self.lengths))))
        if any(c in h for hs in self.held.values() for h in hs for c in run):
            return
        self.offers.ask(getter, 0, [run])
        self.held.setdefault(getter, [])
        self.done.update(run)

    @rule(getter=st.sampled_from(GETTERS))
    def leaves(self, getter: str) -> None:
        self.held.pop(getter, None)
        self.offers.leave(getter)

    def check(self) -> None:
        hands = [c for runs in self.held.values() for run in runs for c in run]
        assert len(hands) == len(set(hands)), "each chunk is offered to one getter at a time"

    def teardown(self) -> None:
        """One getter that stays is offered all that nobody fetched."""
        if not hasattr(self, "offers"):
            return
        for getter in list(self.held):
            self.leaves(getter)
        runs: list[range] = []
        for _ in range(len(self.lengths) + 2):
            fetched, runs = runs, self.offers.ask("stays", 2, runs)
            self.done.update(c for run in fetched for c in run)
        assert self.done == set(range(len(self.lengths)))
        assert self.offers.over("stays")


TestDealing = DealingMachine.TestCase
TestDealing.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


def test_small_adjacent_chunks_are_offered_together() -> None:
    offers = Dealing([1] * (RUN_CHUNKS + 10))
    assert offers.ask("a", 5) == [range(RUN_CHUNKS), range(RUN_CHUNKS, RUN_CHUNKS + 10)]


def test_a_round_begins_where_it_is_told_to() -> None:
    offers = Dealing([MIB] * 4, start=2)
    assert offers.ask("a", 9) == [range(2, 3), range(3, 4), range(1), range(1, 2)]


def test_no_more_getters_than_so_many_are_dealt_to_at_a_time() -> None:
    offers = Dealing([MIB] * 1000)
    for n in range(MAX_GETTERS):
        assert offers.ask(f"getter {n}", 1)
    assert offers.ask("one more", 1) == []
    assert not offers.over("one more")
    offers.leave("getter 3")
    assert offers.ask("one more", 1) == [range(3, 4)], "what the one that left had not fetched"


def test_what_one_takes_much_too_long_for_is_offered_to_another_once() -> None:
    offers = Dealing([MIB] * 100)
    slow = offers.ask("slow", 2, now=0.0)
    quick = offers.ask("quick", 1, now=0.0)
    offers.ask("quick", 0, quick, now=1.0)
    assert offers.ask("quick", 1, now=PATIENCE - 0.1) == [range(3, 4)]
    assert offers.ask("quick", 3, now=PATIENCE + 0.1) == [*slow, range(4, 5)]
    assert offers.ask("third", 1, now=PATIENCE + 0.2) == [range(5, 6)]
    offers.ask("quick", 0, slow, now=PATIENCE + 1)
    offers.leave("slow")
    assert offers.ask("third", 2, now=PATIENCE + 2) == slow, "nobody has said that the one that left fetched them"


def test_without_anything_fetched_nothing_is_overdue() -> None:
    offers = Dealing([MIB] * 100)
    offers.ask("slow", 2, now=0.0)
    assert offers.ask("quick", 1, now=1e6) == [range(2, 3)]


def test_it_is_over_when_all_was_fetched_and_not_before() -> None:
    offers = Dealing([MIB])
    assert offers.ask("a", 1) == [range(1)]
    assert offers.ask("b", 1) == []
    assert not offers.over("b")
    offers.ask("a", 0, [range(1)])
    assert offers.over("b")
