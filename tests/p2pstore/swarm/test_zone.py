"""What a pull is told of its zone: who claims what, and which chunks are its own to fetch from abroad."""

from __future__ import annotations

import random

from p2pstore.swarm.gateway import (
    ABROAD,
    ELSEWHERE,
    SAME_HOST,
    SAME_ZONE,
    SETTLE_SECONDS,
    SHARES,
    Claim,
    Gateways,
    Rank,
)
from p2pstore.swarm.rarity import RUN_BYTES
from p2pstore.swarm.zone import MAX_NEWS, Zone

LENGTHS = [RUN_BYTES] * (2 * SHARES)


def zone() -> Zone:
    return Zone(LENGTHS, Gateways(random.Random(1)))


def test_in_no_zone_nothing_changes() -> None:
    made = Zone(LENGTHS, None)
    assert not made.abroad(ABROAD)
    made.near("peer", SAME_ZONE, whole=True)
    made.heard("peer", Claim(0, 1, Rank.ACTING, 7))
    made.pass_time(0.0)
    made.hungry()
    made.gone("peer")
    assert made.news() == ([], False)
    assert not made.reopens()
    assert made.mine == frozenset()


def test_only_what_is_new_is_told_and_an_election_is_told_apart() -> None:
    made = zone()
    made.near("peer", SAME_HOST, whole=False)
    claims, election = made.news()
    assert [claim.share for claim in claims] == list(range(SHARES))
    assert not election, "the first claims are none"
    assert made.news() == ([], False)
    better = Claim(1, 0, Rank.ACTING, 7, own=True)
    made.heard("peer", better)
    assert made.news() == ([Claim(1, 0, Rank.ACTING, 7)], False)
    made.gone("peer")
    claims, election = made.news()
    assert [(claim.share, claim.term, claim.own) for claim in claims] == [(1, 1, True)]
    assert election


def test_the_chunks_of_its_shares_are_its_own() -> None:
    made = zone()
    made.near("peer", SAME_ZONE, whole=False)
    made.pass_time(0.0)
    assert not made.reopens(), "another may be the gateway"
    made.heard("peer", Claim(1, 0, Rank.ACTING, 7, own=True))
    made.pass_time(SETTLE_SECONDS)
    assert made.reopens()
    assert made.mine == {chunk for chunk in range(2 * SHARES) if chunk % SHARES != 1}
    assert not made.reopens()
    made.near("peer", SAME_ZONE, whole=True)
    assert made.reopens()
    assert made.mine == frozenset()


def test_who_is_in_no_zone_is_neither_near_nor_abroad() -> None:
    made = zone()
    assert made.abroad(ABROAD)
    assert not made.abroad(ELSEWHERE)
    made.near("peer", ELSEWHERE, whole=True)
    assert made.reopens(), "nobody else could fetch it"
    assert len(made.mine) == len(LENGTHS)


def test_elections_without_end_are_told_of_now_and_then_and_keep_nobody_from_hunger() -> None:
    made = zone()
    made.near("liar", SAME_ZONE, whole=False)
    made.news()
    made.pass_time(0.0)
    told = elections = 0
    for term in range(1, 1000):
        made.heard("liar", Claim(0, term, Rank.ACTING, 7, own=True))
        claims, election = made.news()
        told += len(claims)
        elections += election
    assert told <= MAX_NEWS
    assert elections == 1
    made.pass_time(1.0)
    claims, _ = made.news()
    assert claims[0] == Claim(0, 999, Rank.ACTING, 7), "the last, in the end"
    made.fed()
    made.heard("liar", Claim(0, 1000, Rank.ACTING, 7, own=True))
    assert made.news() == ([Claim(0, 1000, Rank.ACTING, 7)], True)
