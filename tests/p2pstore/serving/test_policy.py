"""The policy keeps its promises whatever happens: dead instances, requests that leave, events in any order."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pstore.serving.admission import Admission, Gate, Objectives
from p2pstore.serving.costs import Costs
from p2pstore.serving.ejection import EJECT_FAILURES, EJECTIONS
from p2pstore.serving.events import (
    Arrive,
    Decision,
    Decode,
    DecodeStart,
    Ejected,
    Event,
    Failed,
    Finish,
    InstanceDown,
    InstanceDraining,
    InstanceUp,
    Kind,
    Lost,
    Place,
    PrefillDone,
    Reason,
    Reject,
    Removed,
    Replicate,
    RequestId,
    Stored,
    Tick,
    Token,
)
from p2pstore.serving.hot import HOT_HITS, HOT_SECONDS
from p2pstore.serving.instances import PACE_TOKENS
from p2pstore.serving.learning import HALVE_SECONDS
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import MOST_PLACEMENTS, Policy, PolicySettings

PREFILLS, DECODES = ("p0", "p1", "p2"), ("d0", "d1", "d2")
KINDS = {**dict.fromkeys(PREFILLS, Kind.PREFILL), **dict.fromkeys(DECODES, Kind.DECODE)}
POLICIES = st.builds(
    PolicySettings,
    placement=st.sampled_from(Placement),
    admission=st.sampled_from(Admission),
    objectives=st.sampled_from([Objectives(), Objectives(ttft=2.0, tbt=0.016)]),
    seed=st.integers(0, 2),
)

INSTANCE_EVENTS = st.one_of(
    st.sampled_from(sorted(KINDS)).map(lambda name: InstanceUp(name, KINDS[name])),
    st.builds(InstanceDown, st.sampled_from(sorted(KINDS))),
    st.builds(InstanceDraining, st.sampled_from(sorted(KINDS))),
)
REQUESTS = st.integers(0, 4)
REQUEST_EVENTS = st.one_of(
    st.builds(
        Arrive,
        REQUESTS,
        st.sampled_from([1, 700, 20_000, 120_000]),
        st.lists(st.integers(0, 5), max_size=4).map(tuple),
        st.sampled_from([None, 1, 50]),
        st.sampled_from(["", "a"]),
    ),
    st.builds(PrefillDone, REQUESTS),
    st.builds(DecodeStart, REQUESTS),
    st.builds(Token, REQUESTS, st.integers(1, 5)),
    st.builds(Failed, REQUESTS, st.sampled_from(sorted(KINDS))),
    st.builds(Finish, REQUESTS, st.integers(0, 500), st.booleans()),
)
BLOCK_EVENTS = st.one_of(
    st.builds(kind, st.sampled_from(sorted(KINDS)), st.lists(st.integers(0, 5), unique=True).map(tuple))
    for kind in (Stored, Removed)
)
STEPS = st.lists(
    st.tuples(
        st.one_of(REQUEST_EVENTS, REQUEST_EVENTS, INSTANCE_EVENTS, BLOCK_EVENTS, st.just(Tick())),
        st.sampled_from([0.0, 0.01, 1.0, 30.0]),
    ),
    max_size=60,
)
ALL_UP = [(InstanceUp(name, kind), 0.0) for name, kind in KINDS.items()]


class Story:
    """Feeds a policy, and knows who is there and which requests are under way."""

    def __init__(self, settings_: PolicySettings) -> None:
        self.policy = Policy(settings_)
        self.open: set[str] = set()
        self.here: set[str] = set()
        self.under_way: set[RequestId] = set()
        self.now = 0.0

    def tell(self, event: Event, passed: float = 0.0) -> list[Decision]:
        """``Arrive`` of one that is under way is left out: its owner has no two of one name."""
        self.now += passed
        if isinstance(event, Arrive) and event.request in self.under_way:
            return []
        if isinstance(event, InstanceUp):
            self.open.add(event.name)
            self.here.add(event.name)
        elif isinstance(event, InstanceDown):
            self.open.discard(event.name)
            self.here.discard(event.name)
        elif isinstance(event, InstanceDraining):
            self.open.discard(event.name)
        elif isinstance(event, Finish):
            self.under_way.discard(event.request)
        decisions = self.policy.handle(event, self.now)
        for decision in decisions:
            if isinstance(decision, Place):
                self.under_way.add(decision.request)
            elif isinstance(decision, Reject | Lost):
                self.under_way.discard(decision.request)
        return decisions

    def run(self, steps: list[tuple[Event, float]]) -> Iterator[tuple[Event, list[Decision]]]:
        for event, passed in [*ALL_UP, *steps]:
            yield event, self.tell(event, passed)


@given(POLICIES, STEPS)
def test_nothing_goes_to_an_instance_that_is_dead_or_draining(made: PolicySettings, steps: list) -> None:
    story = Story(made)
    for _, decisions in story.run(steps):
        for decision in decisions:
            if isinstance(decision, Place):
                assert {decision.prefill, decision.decode} <= story.open
                assert decision.transfer_from is None or decision.transfer_from in story.here
            elif isinstance(decision, Decode):
                assert decision.decode in story.open
            elif isinstance(decision, Replicate):
                assert decision.target in story.open
                assert decision.source in story.here


@given(POLICIES, STEPS)
def test_equal_events_make_equal_decisions(made: PolicySettings, steps: list) -> None:
    assert list(Story(made).run(steps)) == list(Story(made).run(steps))


@given(POLICIES, STEPS)
def test_every_request_is_placed_or_refused_and_nothing_is_left_behind(made: PolicySettings, steps: list) -> None:
    story = Story(made)
    for event, decisions in story.run(steps):
        if isinstance(event, Arrive) and decisions:
            assert len(decisions) == 1
            assert isinstance(decisions[0], Place | Reject)
        assert set(story.policy._requests) == story.under_way
    for request in sorted(story.under_way, key=str):
        story.tell(Finish(request))
    for instance in story.policy.instances():
        assert not instance.queue
        assert not instance.coming
        assert not instance.running
        assert (instance.tokens, instance.coming_tokens, instance.expected) == (0, 0, 0.0)
    for name in KINDS:
        story.tell(InstanceDown(name))
    assert story.policy.prefixes._masks == {}


STRICT = st.builds(
    PolicySettings,
    placement=st.sampled_from(Placement),
    admission=st.sampled_from(Admission),
    # The first is just below what a prompt of 20,000 tokens takes, and the last promises nothing.
    objectives=st.builds(
        Objectives,
        st.sampled_from([Costs().prefill.seconds(20_000, 0) / 1.001, 0.05, 1e6, 1e6]),
        st.sampled_from([0.0144, 0.0155, 0.02]),
    ),
)
LOADS = st.lists(
    st.tuples(
        st.one_of(
            st.builds(Arrive, st.integers(0, 20), st.sampled_from([100, 20_000, 20_000, 60_000, 120_000])),
            st.builds(PrefillDone, st.integers(0, 20)),
            st.builds(Token, st.integers(0, 20), st.sampled_from([1, 20_000])),
            st.builds(Finish, st.integers(0, 20)),
            st.builds(InstanceDraining, st.sampled_from(sorted(KINDS))),
        ),
        st.sampled_from([0.0, 0.01, 1.0]),
    ),
    min_size=12,
    max_size=40,
)


@given(STRICT, LOADS)
@settings(max_examples=100)
def test_refused_is_exactly_what_is_predicted_to_be_over_an_objective(made: PolicySettings, steps: list) -> None:
    """A twin in the same state, which has no objectives, says what was predicted."""
    story = Story(made)
    list(story.run([]))
    for event, passed in steps:
        if not isinstance(event, Arrive | PrefillDone) or (
            isinstance(event, Arrive) and event.request in story.under_way
        ):
            story.tell(event, passed)
            continue
        twin = copy.deepcopy(story.policy)
        twin._gate = Gate(made.admission, Objectives(math.inf, math.inf), twin._gate.cost)
        (predicted,) = twin.handle(event, story.now + passed) or [None]
        decided = story.tell(event, passed)
        if isinstance(predicted, Place | Decode):
            assert decided == [expected(made, predicted)] or same_refusal(made, predicted, decided[0])
        else:
            assert decided == ([] if predicted is None else [predicted])


def expected(made: PolicySettings, predicted: Place | Decode) -> Decision | None:
    return None if over(made, predicted) else predicted


def over(made: PolicySettings, predicted: Place | Decode) -> Reason | None:
    if made.admission is Admission.NONE:
        return None
    if isinstance(predicted, Place) and predicted.ttft > made.objectives.ttft:
        return Reason.TTFT
    if isinstance(predicted, Place) and made.admission is Admission.LATE:
        return None
    return Reason.TBT if predicted.tbt > made.objectives.tbt else None


def same_refusal(made: PolicySettings, predicted: Place | Decode, decided: Decision) -> bool:
    reason = over(made, predicted)
    value = predicted.ttft if reason is Reason.TTFT and isinstance(predicted, Place) else predicted.tbt
    return (
        reason is not None
        and isinstance(decided, Reject)
        and (decided.reason, decided.predicted) == (reason, value)
        and decided.retry_after > 0
    )


@pytest.mark.parametrize("placement", [one for one in Placement if one is not Placement.RANDOM])
@given(length=st.sampled_from([100, 5000, 50_000]), shared=st.booleans(), slow=st.booleans())
@settings(max_examples=12)
def test_no_instance_starves(placement: Placement, length: int, shared: bool, slow: bool) -> None:
    """A stream of requests faster than one instance can serve reaches every one, even if all share a prefix."""
    story = Story(PolicySettings(placement))
    list(story.run([]))
    used: set[str] = set()
    seconds = Costs().prefill.seconds(length, 0)
    for number in range(200):
        blocks = tuple(range(3)) if shared else (number,)
        (placed,) = story.tell(Arrive(number, length, blocks), seconds * 0.05)
        assert isinstance(placed, Place)
        used |= {placed.prefill, placed.decode}
        if slow:
            continue
        story.tell(PrefillDone(number))
        story.tell(Stored(placed.prefill, blocks))
    wanted = set(KINDS) if slow or not shared or placement is Placement.ROUND_ROBIN else set(DECODES)
    assert used >= wanted


def started(**settings_: object) -> Story:
    story = Story(replace(PolicySettings(), **settings_))
    list(story.run([]))
    return story


def test_without_instances_a_request_is_refused_and_told_when_to_come_back() -> None:
    story = started()
    for name in PREFILLS:
        story.tell(InstanceDraining(name))
    (refused,) = story.tell(Arrive("x", 100))
    assert isinstance(refused, Reject)
    assert refused.reason is Reason.NO_INSTANCE
    assert refused.retry_after > 0


def test_who_has_no_token_yet_goes_elsewhere_when_its_instance_dies() -> None:
    story = started()
    (placed,) = story.tell(Arrive("x", 5000, (1, 2)))
    (again,) = story.tell(InstanceDown(placed.prefill), 1.0)
    assert isinstance(again, Place)
    assert again.prefill != placed.prefill
    assert again.ttft > 1.0  # its client has been waiting since it came


def test_who_has_tokens_is_lost_with_its_decode_instance() -> None:
    story = started()
    (placed,) = story.tell(Arrive("x", 5000, (1, 2)))
    for event in (PrefillDone("x"), DecodeStart("x"), Token("x")):
        story.tell(event)
    assert story.tell(InstanceDown(placed.decode)) == [Lost("x")]


def test_a_decode_instance_that_dies_during_prefill_is_replaced_when_that_is_done() -> None:
    story = started()
    (placed,) = story.tell(Arrive("x", 5000, (1, 2)))
    assert story.tell(InstanceDown(placed.decode)) == []
    (decode,) = story.tell(PrefillDone("x"))
    assert isinstance(decode, Decode)
    assert decode.decode != placed.decode


@pytest.mark.parametrize("kind", [Kind.DECODE, Kind.PREFILL])
def test_who_is_computed_goes_to_no_decode_instance_that_is_draining(kind: Kind) -> None:
    story = started()
    (placed,) = story.tell(Arrive("x", 5000, (1, 2)))
    story.tell(InstanceDraining(placed.decode if kind is Kind.DECODE else placed.prefill))
    (decode,) = story.tell(PrefillDone("x"))
    assert isinstance(decode, Decode)
    assert (decode.decode != placed.decode) == (kind is Kind.DECODE)


def test_what_may_kill_instances_does_not_kill_all() -> None:
    story = started()
    for number in range(10):
        story.tell(InstanceUp(f"more{number}", Kind.PREFILL))
    (placed,) = story.tell(Arrive("x", 5000))
    for _ in range(MOST_PLACEMENTS - 1):
        (placed,) = story.tell(InstanceDown(placed.prefill))
    assert story.tell(InstanceDown(placed.prefill)) == [Lost("x")]


@pytest.mark.parametrize("placement", list(Placement))
def test_who_was_failed_goes_elsewhere_while_there_is_another(placement: Placement) -> None:
    story = started(placement=placement)
    (placed,) = story.tell(Arrive("x", 6000, tuple(range(12))))
    story.tell(Stored(placed.prefill, tuple(range(12))))
    (again,) = story.tell(Failed("x", placed.prefill))
    assert isinstance(again, Place)
    assert again.prefill != placed.prefill
    (decode,) = story.tell(PrefillDone("x"))
    (last,) = story.tell(Failed("x", decode.decode))
    assert isinstance(last, Place)
    assert last.prefill != placed.prefill
    assert last.decode != decode.decode
    assert story.tell(Failed("x", last.prefill)) == [Lost("x")]
    assert story.tell(Failed("x", last.prefill)) == []


def test_where_all_have_failed_it_one_is_tried_again() -> None:
    story = Story(PolicySettings())
    for name in ("p0", "d0"):
        story.tell(InstanceUp(name, KINDS[name]))
    story.tell(Arrive("x", 600))
    assert isinstance(story.tell(Failed("x", "p0"))[0], Place)


def test_who_has_tokens_is_lost_where_it_was_failed() -> None:
    story = started()
    (placed,) = story.tell(Arrive("x", 600))
    for event in (PrefillDone("x"), DecodeStart("x"), Token("x")):
        story.tell(event)
    assert story.tell(Failed("x", placed.decode)) == [Lost("x")]


def test_two_requests_of_one_name_are_a_callers_mistake() -> None:
    story = started()
    story.tell(Arrive("x", 1))
    with pytest.raises(ValueError, match="'x' is there already"):
        story.policy.handle(Arrive("x", 1), 0.0)


def test_a_queued_prompt_counts_as_held_where_it_will_be_computed() -> None:
    story = started(placement=Placement.PREFIX_LOCAL)
    (first,) = story.tell(Arrive("x", 6000, tuple(range(12))))
    (second,) = story.tell(Arrive("y", 6000, tuple(range(12))), 5.0)
    assert second.prefill == first.prefill
    assert second.reused == 5999


def test_a_store_is_fetched_from_and_computes_nothing() -> None:
    story = started()
    story.tell(InstanceUp("pool", Kind.STORE))
    story.tell(Stored("pool", tuple(range(12))))
    (placed,) = story.tell(Arrive("x", 6200, tuple(range(12))))
    assert (placed.transfer_from, placed.reused) == ("pool", 12 * 512)


def asked_often(story: Story) -> None:
    for number in range(HOT_HITS):
        (placed,) = story.tell(Arrive(number, 520, (7,)))
        story.tell(PrefillDone(number))
        story.tell(Finish(number, 10))
        if not number:
            story.tell(Stored(placed.prefill, (7,)))
    story.tell(Arrive("last", 520, (7,)))


def test_a_hot_prefix_is_copied_to_one_more() -> None:
    story = started()
    asked_often(story)
    (copied,) = story.tell(Tick(), HOT_SECONDS)
    assert isinstance(copied, Replicate)
    assert copied.blocks == (7,)
    assert copied.source != copied.target


def test_other_placements_copy_nothing() -> None:
    story = started(placement=Placement.PREFIX_LOCAL)
    asked_often(story)
    assert story.tell(Tick(), HOT_SECONDS) == []


def test_outputs_like_those_of_its_conversation_are_expected() -> None:
    story = started()
    story.tell(Arrive("x", 1000, (1, 2)))
    story.tell(PrefillDone("x"))
    story.tell(Finish("x", 77))
    story.tell(Stored("p0", (1, 2)))
    story.tell(Arrive("y", 2000, (1, 2, 3, 4)))
    story.tell(Arrive("z", 2000, (1, 2, 5), limit=10))
    assert [story.policy._requests[name].expected for name in ("y", "z")] == [77, 10]


# Those that fail what they are asked


def served_by(story: Story, number: int, broken: set[str]) -> list[str]:
    """Take a request to its end, where the broken fail all: on whom it was, in order."""
    asked: list[str] = []
    decisions = story.tell(Arrive(number, 1000))
    while (place := next((one for one in decisions if isinstance(one, Place)), None)) is not None:
        asked.append(place.prefill)
        if place.prefill in broken:
            decisions = story.tell(Failed(number, place.prefill))
            continue
        (decode,) = story.tell(PrefillDone(number))
        assert isinstance(decode, Decode)
        asked.append(decode.decode)
        if decode.decode in broken:
            decisions = story.tell(Failed(number, decode.decode))
            continue
        story.tell(Finish(number, 10))
        break
    return asked


class Watched(Story):
    """Sees that who is ejected gets something only where all of its kind are."""

    def tell(self, event: Event, passed: float = 0.0) -> list[Decision]:
        decisions = super().tell(event, passed)
        for decision in decisions:
            names = {Place: ("prefill", "decode"), Decode: ("decode",)}.get(type(decision), ())
            for name in (getattr(decision, name) for name in names):
                others = [one for one in self.open if KINDS[one] is KINDS[name]]
                ejected = [one for one in others if self.policy.ejected(one, self.now)]
                assert name not in ejected or ejected == others
        return decisions


@given(
    st.sampled_from(Placement),
    st.lists(
        st.tuples(st.sets(st.sampled_from(sorted(KINDS))), st.integers(1, 12), st.sampled_from([0.0, 0.1, 5.0, 400.0])),
        max_size=8,
    ),
)
@settings(max_examples=60)
def test_who_is_ejected_gets_nothing_while_another_is_there_and_is_asked_again(
    placement: Placement, phases: list[tuple[set[str], int, float]]
) -> None:
    story = Watched(PolicySettings(placement))
    list(story.run([]))
    number = 0
    for broken, count, passed in phases:
        for _ in range(count):
            number += 1
            story.now += passed
            served_by(story, number, broken)
    story.now += EJECTIONS.last
    assert not any(story.policy.ejected(name, story.now) for name in KINDS)


@pytest.mark.parametrize("broken", ["p1", "d1"])
def test_who_fails_several_in_a_row_is_passed_over_for_a_while(broken: str) -> None:
    story = started(placement=Placement.ROUND_ROBIN)
    numbers = iter(range(10_000))

    def asked(count: int) -> int:
        return sum(served_by(story, next(numbers), {broken}).count(broken) for _ in range(count))

    while not story.policy.ejected(broken, story.now):
        asked(1)
    assert sum(served_by(story, next(numbers), {broken}).count(broken) for _ in range(30)) == 0
    for times in (1, 2, 3):
        pause = EJECTIONS.after(times)
        story.now += 0.999 * pause
        assert asked(9) == 0
        story.now += 0.002 * pause
        assert asked(30) == 1, "the first one that it fails again decides"
    story.now += EJECTIONS.last
    assert sum(served_by(story, next(numbers), set()).count(broken) for _ in range(30)) >= 9
    assert asked(30) >= EJECT_FAILURES, "what it did well makes all forgotten"


def test_it_is_said_which_is_passed_over_and_for_how_long() -> None:
    story = started(placement=Placement.ROUND_ROBIN)
    said: list[Decision] = []
    for number in range(40):
        (placed,) = story.tell(Arrive(number, 100))
        if placed.prefill == "p0":
            said += [one for one in story.tell(Failed(number, "p0")) if isinstance(one, Ejected)]
    assert said == [Ejected("p0", EJECTIONS.after(1), EJECT_FAILURES)]
    story.now += EJECTIONS.after(1)
    for number in range(40, 50):
        (placed,) = story.tell(Arrive(number, 100))
        if placed.prefill == "p0":
            break
    assert Ejected("p0", EJECTIONS.after(2), EJECT_FAILURES + 1) in story.tell(Failed(number, "p0"))


def test_one_request_ejects_nobody_and_neither_does_being_busy() -> None:
    story = Story(PolicySettings(Placement.ROUND_ROBIN))
    for name in ("p0", "d0"):
        story.tell(InstanceUp(name, KINDS[name]))
    for number in range(EJECT_FAILURES - 1):
        story.tell(Arrive(number, 100))
        while not isinstance(story.tell(Failed(number, "p0"))[0], Lost):
            pass
    assert not story.policy.ejected("p0", story.now)
    for number in range(100, 100 + 2 * EJECT_FAILURES):
        story.tell(Arrive(number, 100))
        story.tell(Failed(number, "p0", busy=True))
    assert not story.policy.ejected("p0", story.now)
    story.tell(Arrive("last", 100))
    assert Ejected("p0", EJECTIONS.after(1), EJECT_FAILURES) in story.tell(Failed("last", "p0"))


def test_where_all_are_ejected_all_are_asked() -> None:
    story = started(placement=Placement.ROUND_ROBIN)
    for number in range(30):
        served_by(story, number, set(KINDS))
    assert all(story.policy.ejected(name, story.now) for name in PREFILLS)
    placed = [story.tell(Arrive(number, 100))[0] for number in range(100, 103)]
    assert {one.prefill for one in placed} == set(PREFILLS)
    story.tell(PrefillDone(100))
    assert [name for name in PREFILLS if not story.policy.ejected(name, story.now)] == [placed[0].prefill]
    assert {story.tell(Arrive(number, 100))[0].prefill for number in range(200, 210)} == {placed[0].prefill}


def test_what_ends_well_that_was_begun_before_says_nothing() -> None:
    story = started(placement=Placement.ROUND_ROBIN)
    before = []
    for number in range(9):
        (placed,) = story.tell(Arrive(number, 100))
        story.tell(PrefillDone(number))
        if placed.decode == "d0":
            before.append(number)
    story.now += 1.0
    number, failures = 100, 0
    while not story.policy.ejected("d0", story.now):
        number += 1
        failures += served_by(story, number, {"d0"}).count("d0")
        if before and failures:
            story.tell(Finish(before.pop(), 10))
    assert not before
    assert failures == EJECT_FAILURES


# The pace of tokens


def decoded(story: Story, number: int, length: int, tokens: int, step: float) -> Decode:
    """A stream whose tokens come a step apart."""
    story.tell(Arrive(number, length))
    (decode,) = story.tell(PrefillDone(number))
    story.tell(DecodeStart(number))
    for _ in range(tokens):
        story.tell(Token(number), step)
    story.tell(Finish(number, tokens))
    assert isinstance(decode, Decode)
    return decode


def test_the_time_between_tokens_is_what_was_observed() -> None:
    """The guess is 15 ms: engines that take ten times as long are known for it, and refuse what would be too slow."""
    story = started(admission=Admission.EARLY)
    assert decoded(story, 0, 1000, 1, 0.15).tbt < 0.02
    for number in range(1, 20):
        decoded(story, number, 1000, 4 * PACE_TOKENS, 0.15)
    assert decoded(story, 100, 1000, 1, 0.15).tbt == pytest.approx(0.15, rel=0.1)
    refused = refused_when_slow(story)
    assert refused.reason is Reason.TBT
    assert refused.predicted == pytest.approx(0.21, rel=0.05)


def refused_when_slow(story: Story) -> Reject:
    """Streams get slower until one is refused."""
    for number in range(1000, 2000):
        (decision,) = story.tell(Arrive(number, 1000))
        if isinstance(decision, Reject):
            return decision
        story.tell(Finish(number, 0, complete=False))
        decoded(story, -number, 1000, PACE_TOKENS + 1, 0.21)
    raise AssertionError("none is")


def test_what_is_refused_for_what_was_observed_once_is_tried_again() -> None:
    """Nothing that is refused shows that it would be quick enough by now."""
    story = started(admission=Admission.EARLY)
    refused_when_slow(story)
    for _ in range(10):
        assert isinstance(story.tell(Arrive("x", 1000), HALVE_SECONDS / 10)[0], Reject)
        story.tell(Tick())
    story.tell(Tick(), HALVE_SECONDS / 10)
    for number in range(40):
        decoded(story, number, 1000, 2 * PACE_TOKENS, 0.02)
    (placed,) = story.tell(Arrive("y", 1000))
    assert placed.tbt == pytest.approx(0.02, rel=0.2)


def test_a_guess_that_refuses_all_is_not_believed_for_ever() -> None:
    """The guess is 20 ms for any prefill: an engine that takes 1 ms is never asked otherwise."""
    story = started(admission=Admission.EARLY, objectives=Objectives(ttft=0.005))
    placed: list[Decision] = []
    for _ in range(4):
        placed += story.tell(Arrive("x", 10))
        story.tell(Tick(), HALVE_SECONDS)
    assert isinstance(placed[0], Reject)
    assert isinstance(placed[-1], Place)
    assert isinstance(story.tell(PrefillDone("x"), 0.001)[0], Decode)


def test_what_a_client_takes_slowly_says_nothing_of_the_engine() -> None:
    story = started()
    before = story.policy.costs.decode.cost
    story.tell(Arrive("x", 1000))
    story.tell(PrefillDone("x"))
    story.tell(DecodeStart("x"))
    for _ in range(20 * PACE_TOKENS):
        story.tell(Token("x", held=True), 10.0)
    assert story.policy.costs.decode.cost == before


def test_what_is_decoded_where_it_was_computed_is_nobody_elses() -> None:
    story = started()
    story.tell(Arrive("x", 1000))
    assert story.tell(PrefillDone("x", alone=True)) == []
    before = story.policy.costs.decode.cost
    for _ in range(100):
        story.tell(Token("x"), 0.1)
    assert story.policy.costs.decode.cost == before
    assert not any(one.running or one.coming or one.tokens for one in story.policy.instances())
    assert story.tell(Finish("x", 100)) == []
    assert story.policy._requests == {}
