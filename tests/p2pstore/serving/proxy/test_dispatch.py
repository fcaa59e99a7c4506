"""Decisions of the policy reach the requests that they are about."""

from __future__ import annotations

from p2pstore.serving.events import (
    Decode,
    InstanceDown,
    InstanceUp,
    Kind,
    Lost,
    Place,
    Reject,
    Removed,
    Stored,
)
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import Policy, PolicySettings
from p2pstore.serving.proxy.dispatch import Dispatcher, Fate
from p2pstore.serving.proxy.prompts import Prompt
from p2pstore.serving.proxy.requests import parse

PROMPT = Prompt(1000, (1, 2, 3))


class Noting:
    def __init__(self) -> None:
        self.fates: list[Fate] = []
        self.asked = parse("/v1/completions", b"{}")

    def moved(self, fate: Fate) -> None:
        self.fates.append(fate)


def made(placement: Placement = Placement.ROUND_ROBIN, *names: str) -> Dispatcher:
    dispatcher = Dispatcher(Policy(PolicySettings(placement, block_tokens=128)), lambda: 0.0)
    for name in names or ("p0", "p1", "d0", "d1"):
        dispatcher.instance(InstanceUp(name, Kind.PREFILL if name.startswith("p") else Kind.DECODE))
    return dispatcher


def test_the_way_of_a_request() -> None:
    dispatcher, rider = made(), Noting()
    number, place = dispatcher.arrive(rider, PROMPT, 5, "")
    assert isinstance(place, Place)
    fate = dispatcher.prefilled(number, place.prefill)
    assert isinstance(fate, Decode)
    assert fate.decode == place.decode
    dispatcher.begun(number)
    dispatcher.tokens(number, 3)
    dispatcher.finish(number, 3, complete=True)
    assert rider.fates == []
    assert dispatcher._riders == {}


def test_the_death_of_an_instance_moves_those_that_were_there() -> None:
    dispatcher = made()
    riders = {}
    for _ in range(4):
        rider = Noting()
        number, place = dispatcher.arrive(rider, PROMPT, 5, "")
        assert isinstance(place, Place)
        riders[number] = (rider, place)
    dispatcher.instance(InstanceDown("p0"))
    for rider, place in riders.values():
        moved = [fate.prefill for fate in rider.fates if isinstance(fate, Place)]
        assert moved == (["p1"] if place.prefill == "p0" else [])


def test_an_instance_that_failed_a_request_is_not_taken_again() -> None:
    dispatcher = made()
    number, place = dispatcher.arrive(Noting(), PROMPT, 5, "")
    assert isinstance(place, Place)
    again = dispatcher.failed(number, place.prefill)
    assert isinstance(again, Place)
    assert again.prefill != place.prefill
    last = dispatcher.failed(number, again.prefill)
    assert isinstance(last, Place)  # each has failed it: one of them may do better now
    assert dispatcher.failed(number, last.prefill) == Lost(number)
    assert dispatcher.failed(number, last.prefill) == Lost(number)


def test_a_request_is_found_by_what_its_prompt_begins_with() -> None:
    dispatcher, riders = made(), [Noting(), Noting()]
    numbers = [
        dispatcher.arrive(rider, prompt, 5, "")[0]
        for rider, prompt in zip(riders, (PROMPT, Prompt(1000, (1, 9))), strict=True)
    ]
    assert dispatcher.beginning_with((1, 2)) is None, "no instance has let its client in"
    for number in numbers:
        dispatcher.prefilled(number, "p0")
    assert dispatcher.beginning_with((1, 2)) is riders[0]
    assert dispatcher.beginning_with([1, 9]) is riders[1]
    for other in ((2,), (1, 2, 3, 4), (1, 2, 9)):
        assert dispatcher.beginning_with(other) is None
    dispatcher.finish(numbers[0], 0, complete=True)
    assert dispatcher.beginning_with((1, 2)) is None


def test_without_instances_it_is_refused() -> None:
    dispatcher = made(Placement.ROUND_ROBIN, "p0")
    assert isinstance(dispatcher.arrive(Noting(), PROMPT, None, "")[1], Reject)


def test_what_was_computed_is_taken_to_be_held() -> None:
    dispatcher = made(Placement.PREFIX_LOCAL)
    number, first = dispatcher.arrive(Noting(), PROMPT, 5, "")
    assert isinstance(first, Place)
    dispatcher.prefilled(number, first.prefill)
    for _ in range(3):
        number, place = dispatcher.arrive(Noting(), PROMPT, 5, "")
        assert isinstance(place, Place)
        assert (place.prefill, place.reused) == (first.prefill, 384)
        dispatcher.prefilled(number, place.prefill)
    dispatcher.instance(InstanceDown(first.prefill))
    dispatcher.instance(InstanceUp(first.prefill, Kind.PREFILL))
    assert dispatcher.policy.prefixes.match((1, 2, 3), 15).best == 0


def test_those_who_know_are_believed_instead() -> None:
    dispatcher = made(Placement.PREFIX_LOCAL)
    for name in ("p0", "p1"):
        dispatcher.others_tell(name)
    number, first = dispatcher.arrive(Noting(), PROMPT, 5, "")
    assert isinstance(first, Place)
    dispatcher.prefilled(number, first.prefill)
    assert dispatcher.policy.prefixes.match((1, 2, 3), 15).best == 0
    dispatcher.told(Stored("p1", (1, 2)))
    _, place = dispatcher.arrive(Noting(), Prompt(1000, (1, 2, 9)), 5, "")
    assert isinstance(place, Place)
    assert (place.prefill, place.reused) == ("p1", 256)
    dispatcher.told(Removed("p1", (1, 2)))
    assert dispatcher.policy.prefixes.match((1, 2, 3), 15).best == 0
