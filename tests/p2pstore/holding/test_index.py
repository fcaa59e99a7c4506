"""Whatever is held and let go, the index answers as a search through all would."""

from __future__ import annotations

import random
from pathlib import Path

from p2pstore.holding.catalog import Holding
from p2pstore.holding.index import Index
from tests.p2pstore.samples import manifest_of, record_of

CONTENTS = [manifest_of({"": bytes([n])}) for n in range(3)]
NAMES = ("a", "b", "c")
ROOTS = (Path("/1"), Path("/2"), None)


def drawn(chance: random.Random) -> Holding:
    return Holding(record_of(chance.choice(NAMES), chance.choice(CONTENTS)), "gold", chance.choice(ROOTS), ())


def test_it_agrees_with_a_search() -> None:
    for seed in range(60):
        chance = random.Random(seed)
        held, model = Index(), dict[tuple[str, str], Holding]()
        for _ in range(60):
            one = drawn(chance)
            if chance.random() < 0.6:
                held.add(one)
                model.pop((one.name, one.place), None)
                model[one.name, one.place] = one
            else:
                held.discard(one)
                model.pop((one.name, one.place), None)
            there = list(model.values())
            assert list(held) == there
            assert len(held) == len(there)
            assert held.names == len({h.name for h in there})
            for name in NAMES:
                assert held.named(name) == [h for h in there if h.name == name]
            for content in CONTENTS:
                assert held.of(content.digest) == [h for h in there if h.digest == content.digest]
            for root in ROOTS[:2]:
                assert root is not None
                assert held.at(root) == next((h for h in there if h.root == root), None)
            new = drawn(chance)
            displaced = [h for h in there if h.root == new.root and h.digest != new.digest]
            assert held.displaced_by(new) == [h for h in displaced if new.root is not None or h.name == new.name]


def test_one_that_took_the_place_is_another() -> None:
    held = Index()
    old, new = (Holding(record_of("a", content), "gold", Path("/1"), ()) for content in CONTENTS[:2])
    held.add(old)
    assert old in held
    held.add(new)
    assert old not in held
    assert new in held
