"""Whom an instance that dies, drains or fails leaves behind: it goes elsewhere, or is lost."""

from __future__ import annotations

import pytest

from p2pstore.serving.events import (
    Arrive,
    Decode,
    DecodeStart,
    Failed,
    InstanceDown,
    InstanceDraining,
    InstanceUp,
    Kind,
    Lost,
    Place,
    PrefillDone,
    Stored,
    Token,
)
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import MOST_PLACEMENTS, PolicySettings
from tests.p2pstore.serving.story import KINDS, Story, started


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
