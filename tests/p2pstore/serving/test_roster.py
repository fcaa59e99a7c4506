"""Who takes requests."""

from __future__ import annotations

from p2pstore.serving.ejection import EJECT_FAILURES, EJECTIONS
from p2pstore.serving.events import Kind
from p2pstore.serving.roster import Roster, least_used, lightest

NOBODY: frozenset[str] = frozenset()


def roster() -> Roster:
    made = Roster()
    for name in ("d0", "d1", "d2"):
        made.add(name, Kind.DECODE, 0.0)
    return made


def names(made: Roster, now: float = 0.0, avoid: frozenset[str] = NOBODY) -> list[str]:
    return [one.name for one in made.open(Kind.DECODE, avoid, now)]


def eject(made: Roster, name: str) -> None:
    instance = made.find(name)
    assert instance is not None
    for _ in range(EJECT_FAILURES):
        instance.ejection.failed(0.0)
    made.look(0.0)


def test_who_drains_takes_none_and_who_is_back_does() -> None:
    made = roster()
    instance = made.find("d1")
    assert instance is not None
    made.drain(instance, 0.0, draining=True)
    assert names(made) == ["d0", "d2"]
    assert len(made.every) == 3
    made.drain(instance, 0.0, draining=False)
    assert names(made) == ["d0", "d1", "d2"]


def test_numbers_of_those_that_are_gone_are_used_again() -> None:
    made = roster()
    made.remove("d1", 0.0)
    assert made.remove("d1", 0.0) is None
    made.add("d3", Kind.PREFILL, 0.0)
    assert sorted(one.number for one in made.every) == [0, 1, 2]
    assert made.members == 0b010101
    assert names(made) == ["d0", "d2"]


def test_who_failed_it_takes_it_only_where_there_is_no_other() -> None:
    made = roster()
    assert names(made, avoid=frozenset({"d0", "d2"})) == ["d1"]
    assert names(made, avoid=frozenset({"d0", "d1", "d2"})) == ["d0", "d1", "d2"]


def test_who_is_ejected_is_back_by_the_clock_alone() -> None:
    made = roster()
    eject(made, "d0")
    assert names(made) == ["d1", "d2"]
    assert names(made, avoid=frozenset({"d1", "d2"})) == ["d1", "d2"], "it failed others, and these but this one"
    eject(made, "d1")
    eject(made, "d2")
    assert names(made) == ["d0", "d1", "d2"]
    made.remove("d2", 0.0)
    made.add("d2", Kind.DECODE, 0.0)
    assert names(made) == ["d2"]
    assert names(made, EJECTIONS.first) == ["d0", "d1", "d2"]


def test_who_is_lightest_and_who_waited_longest() -> None:
    made = roster().open(Kind.DECODE, NOBODY, 0.0)
    for instance, (tokens, coming, used) in zip(made, ((5, 5, 1), (9, 0, 7), (0, 9, 6)), strict=True):
        instance.tokens, instance.coming_tokens, instance.used = tokens, coming, used
    assert lightest(made).name == "d2"
    assert least_used(made).name == "d0"
