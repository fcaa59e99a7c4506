"""What is refused for being over an objective, and the observed pace of tokens from which that is predicted."""

from __future__ import annotations

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pstore.serving.admission import Admission, Gate, Objectives
from p2pstore.serving.costs import Costs
from p2pstore.serving.events import (
    Arrive,
    Decision,
    Decode,
    DecodeStart,
    Finish,
    InstanceDraining,
    Place,
    PrefillDone,
    Reason,
    Reject,
    Tick,
    Token,
)
from p2pstore.serving.instances import PACE_TOKENS
from p2pstore.serving.learning import HALVE_SECONDS
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from tests.p2pstore.serving.story import KINDS, PREFILLS, Story, started

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


def test_without_instances_a_request_is_refused_and_told_when_to_come_back() -> None:
    story = started()
    for name in PREFILLS:
        story.tell(InstanceDraining(name))
    (refused,) = story.tell(Arrive("x", 100))
    assert isinstance(refused, Reject)
    assert refused.reason is Reason.NO_INSTANCE
    assert refused.retry_after > 0


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
