"""What each peer could bring: by what is missing, by who has it, and by whose share of it that is."""

from __future__ import annotations

import random
from collections.abc import Sequence

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.gateway import Gateways
from p2pstore.swarm.peer import Peer
from p2pstore.swarm.supply import Supply
from p2pstore.swarm.zone import Zone
from tests.p2pstore.swarm.planners import MIB, bits

COUNT = 8


def supply(had: Sequence[int] = (), zone: Zone | None = None) -> Supply:
    lengths = [MIB] * COUNT
    return Supply(lengths, bits(COUNT, had), zone or Zone(lengths, None), random.Random(0))


def getter(made: Supply, chunks: Sequence[int], name: str = "g") -> Peer:
    peer = Peer(name, Bitmap(COUNT), 0, origin=False)
    made.has(peer, chunks)
    return peer


def origin(made: Supply) -> Peer:
    peer = Peer("o", Bitmap(COUNT), 0, origin=True)
    made.has(peer, range(COUNT))
    return peer


def test_of_a_getter_what_is_had_is_not_wanted() -> None:
    made = supply(had=[0, 1])
    assert not made.useful(getter(made, [0, 1]))
    peer = getter(made, [1, 2])
    assert made.may_use(peer)
    assert made.pick(peer, MIB) == range(2, 3)
    assert made.pick(peer, MIB) == range(0), "it was taken"
    assert not made.useful(peer)


def test_the_rarest_is_picked_and_what_lies_around_it() -> None:
    made = supply()
    one, other = getter(made, range(COUNT)), getter(made, [0, 1, 2, 5, 6, 7], "h")
    assert made.pick(one, 2 * MIB) in (range(3, 5), range(4, 6), range(3, 4))
    first = made.pick(other, MIB)
    assert len(first) == 1
    assert first[0] in other.have


def test_an_origin_brings_what_no_getter_has_first() -> None:
    made = supply()
    getter(made, [0, 1, 2, 3, 4, 5, 6])
    assert made.pick(origin(made), MIB) == range(7, 8)


def test_what_a_getter_had_is_rare_again_when_it_is_gone() -> None:
    made = supply()
    peer, whole = getter(made, range(1, COUNT)), origin(made)
    assert made.gone(peer)
    assert not made.gone(whole), "it spread nothing in this zone"
    assert {made.pick(whole, MIB)[0] for _ in range(COUNT)} == set(range(COUNT))


def test_what_comes_late_counts_only_while_nobody_writes_the_same() -> None:
    made = supply()
    whole = origin(made)
    run = made.pick(whole, MIB)
    made.arrived(run, landed=False)
    assert run[0] not in made.had, "somebody else may write there now"
    made.put_back(run[0], [whole])
    made.arrived(run, landed=False)
    assert run[0] in made.had
    assert run[0] not in made.missing
    other = made.pick(whole, MIB)
    made.arrived(other, landed=True)
    assert other[0] in made.had


def test_what_is_put_back_may_be_asked_of_whoever_has_it() -> None:
    made = supply()
    peer, other = getter(made, [3]), getter(made, [4], "h")
    assert made.pick(peer, MIB) == range(3, 4)
    made.put_back(3, [peer, other])
    assert made.useful(peer)
    assert made.pick(other, MIB) == range(4, 5)
    assert made.pick(other, MIB) == range(0)
    assert made.pick(peer, MIB) == range(3, 4)


def test_from_abroad_only_this_nodes_share_and_what_none_near_has() -> None:
    zone = Zone([MIB] * COUNT, Gateways(random.Random(0)))
    made = supply(had=[0], zone=zone)
    far = Peer("far", Bitmap(COUNT), 0, origin=True, abroad=True)
    made.has(far, range(COUNT))
    assert made.useful(far)
    assert not made.may_use(far)
    assert not made.may_bring(far, range(1, 2))
    assert made.pick(far, MIB) == range(0)
    zone.mine = frozenset([0, 1, 2])
    made.reopen(far)
    getter(made, [1])
    assert made.may_bring(far, range(1, 3))
    assert not made.may_bring(far, range(1, 4))
    assert made.pick(far, MIB) == range(2, 3)
    assert made.pick(far, MIB) == range(0), "what one near has is not fetched from there"
