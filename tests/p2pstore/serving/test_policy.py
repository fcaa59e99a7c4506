"""The policy keeps its promises whatever happens: dead instances, requests that leave, events in any order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pstore.serving.admission import Admission, Objectives
from p2pstore.serving.costs import Costs
from p2pstore.serving.events import (
    Arrive,
    Decode,
    DecodeStart,
    Failed,
    Finish,
    InstanceDown,
    InstanceDraining,
    InstanceUp,
    Kind,
    Place,
    PrefillDone,
    Reject,
    Removed,
    Replicate,
    Stored,
    Tick,
    Token,
)
from p2pstore.serving.hot import HOT_HITS, HOT_SECONDS
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from tests.p2pstore.serving.story import DECODES, KINDS, Story, started

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
