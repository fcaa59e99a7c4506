"""Which instance a prompt goes to, one way to choose after the other."""

from __future__ import annotations

import pytest

from p2pstore.serving.events import Kind
from p2pstore.serving.instances import Instance, Tracked
from p2pstore.serving.placement import WORTH_FETCHING, Option, Placement, Placer, Prompt
from p2pstore.serving.prefixes import Prefixes, members

BLOCK = 10


def cluster(*waits: float) -> list[Instance]:
    made = [Instance(f"p{number}", Kind.PREFILL, number) for number in range(len(waits))]
    for instance, wait in zip(made, waits, strict=True):
        if wait:
            instance.enqueue(Tracked("before", 1, (), 0.0, work=wait), 0.0)
    return made


def choose(
    placement: Placement, instances: list[Instance], holds: dict[int, int] | None = None, token: float = 0.0
) -> Option:
    """Of a prompt of ten blocks, which takes a second for each block; ``holds``: blocks by instance."""
    prefixes = Prefixes()
    for number, count in (holds or {}).items():
        prefixes.stored(number, range(count))
    match = prefixes.match(range(10), members(one.number for one in instances))
    prompt = Prompt(10 * BLOCK, BLOCK, match, 0.0, lambda length, reused: (length - reused) / BLOCK, token)
    return Placer(placement, 0).choose(prompt, instances, instances)


def test_in_turn_whatever_the_load() -> None:
    instances = cluster(9, 0, 0)
    instances[1].used, instances[2].used = 2, 1
    assert choose(Placement.ROUND_ROBIN, instances).instance.name == "p0"


def test_the_least_load_whatever_the_prefix() -> None:
    assert choose(Placement.LEAST_LOAD, cluster(1, 0.5), {0: 9}).instance.name == "p1"


def test_what_an_instance_has_itself_counts() -> None:
    found = choose(Placement.PREFIX_LOCAL, cluster(1, 0.5), {0: 9})
    assert (found.instance.name, found.reused, found.ttft, found.source) == ("p0", 90, 2.0, None)


def test_a_long_queue_outweighs_a_prefix() -> None:
    assert choose(Placement.PREFIX_LOCAL, cluster(30, 0.5), {0: 9}).instance.name == "p1"


def test_the_best_prefix_is_fetched_where_the_queue_is_short() -> None:
    found = choose(Placement.KVCACHE_CENTRIC, cluster(30, 0.5), {0: 9}, token=0.01)
    assert (found.instance.name, found.reused) == ("p1", 90)
    assert found.source is not None
    assert (found.source.name, found.fetch, found.ttft) == ("p0", pytest.approx(0.9), pytest.approx(1.9))


def test_what_takes_longer_to_fetch_is_computed() -> None:
    found = choose(Placement.KVCACHE_CENTRIC, cluster(30, 0.5), {0: 9}, token=1.0)
    assert (found.instance.name, found.reused, found.source) == ("p1", 0, None)


def test_a_prefix_that_is_hardly_longer_is_not_fetched() -> None:
    holds = {0: 9, 1: 8}
    assert WORTH_FETCHING > 9 / 8
    assert choose(Placement.KVCACHE_CENTRIC, cluster(30, 0), holds).source is None


def test_a_sender_that_is_busy_is_waited_for() -> None:
    instances = cluster(30, 0)
    instances[0].sending = 5.0
    assert choose(Placement.KVCACHE_CENTRIC, instances, {0: 9}, token=0.001).fetch == pytest.approx(5.09)


def test_one_token_at_least_is_computed() -> None:
    assert choose(Placement.PREFIX_LOCAL, cluster(0), {0: 10}).reused == 10 * BLOCK - 1


@pytest.mark.parametrize("placement", [Placement.LEAST_LOAD, Placement.PREFIX_LOCAL, Placement.KVCACHE_CENTRIC])
def test_of_equals_the_one_that_waited_longest(placement: Placement) -> None:
    instances = cluster(0, 0, 0)
    instances[0].used, instances[1].used, instances[2].used = 3, 1, 2
    assert choose(placement, instances).instance.name == "p1"
