"""Where connections stand: each has one owner at a time, the oldest goes first, and deadlines bind parked ones alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.serving import connections as module
from engine.serving.connections import CHANGES, PARKED, TIMED, Change, Connections, Life, Stage

OURS = [Change.PARK, Change.PAUSE, Change.WAIT, Change.ADMIT, Change.ANSWER, Change.REFUSE]
"""Changes that whoever has a connection makes; READY is the watching thread's."""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 5)),
        st.tuples(st.just("ready"), st.integers(0, 5)),
        st.tuples(st.just("evict"), st.just(0)),
        st.tuples(st.just("overdue"), st.integers(0, 20)),
        st.tuples(st.sampled_from([*OURS, Change.CLOSE]), st.integers(0, 5)),
    ),
    max_size=60,
)


def opened(count: int = 1) -> tuple[Connections[Life], list[Life]]:
    found: Connections[Life] = Connections()
    lives = [Life(fd) for fd in range(count)]
    for life in lives:
        found.add(life)
    return found, lives


def go(connections: Connections[Life], life: Life, *changes: Change) -> bool:
    return [connections.change(life, change) for change in changes][-1]


def test_the_table_is_complete() -> None:
    assert set(CHANGES) == set(Stage)
    assert {stage for row in CHANGES.values() for stage in row.values()} == set(Stage)
    for stage, row in CHANGES.items():
        assert row[Change.CLOSE] is Stage.CLOSED
        # A parked connection is taken by somebody before anything else happens, so that it is never parked twice.
        assert stage not in PARKED or set(row) == {Change.READY, Change.CLOSE}
        assert stage in PARKED or stage is Stage.CLOSED or Change.READY not in row


def test_the_drawing_shows_the_table() -> None:
    """Every stage, and every change that leads from one to another."""
    assert module.__doc__ is not None
    words = set(re.findall(r"\w+", module.__doc__))
    assert {stage.name for stage in Stage} <= words
    assert {change.name.lower() for change in Change} <= words


@pytest.mark.parametrize("stage", Stage)
def test_what_the_table_does_not_list_is_an_error(stage: Stage) -> None:
    for change in set(Change) - set(CHANGES[stage]):
        connections, (life,) = opened()
        life.stage = stage
        with pytest.raises(KeyError):
            connections.change(life, change)
        assert life.stage is stage


def test_a_request_that_is_answered_at_once() -> None:
    connections, (life,) = opened()
    assert connections.ready(0) is life
    assert connections.ready(0) is None  # it is the workers'
    go(connections, life, Change.ANSWER, Change.ANSWER)
    assert life.stage is Stage.SERVED
    go(connections, life, Change.PARK)
    assert life.stage is Stage.IDLE
    assert connections.timed == []
    assert connections.ready(0) is life


def test_a_request_that_waits_for_a_slot_is_nobody_elses() -> None:
    connections, (life,) = opened()
    connections.ready(0)
    go(connections, life, Change.WAIT)
    assert connections.ready(0) is None
    assert connections.evict() is None
    life.deadline = 0.0
    assert connections.overdue(1.0) == []
    go(connections, life, Change.ADMIT)
    assert life.stage is Stage.SERVED


def test_a_slow_peer_has_a_deadline_until_its_request_is_done() -> None:
    connections, (life, other) = opened(2)
    connections.ready(0)
    connections.ready(1)
    assert go(connections, life, Change.PAUSE)  # the first: somebody must look from now on
    assert not go(connections, other, Change.PAUSE)
    life.deadline, other.deadline = 5.0, 7.0
    assert connections.overdue(5.0) == []
    assert connections.ready(0) is life
    assert connections.overdue(6.0) == []  # a worker has it
    assert connections.timed == [life, other]
    go(connections, life, Change.PAUSE)
    assert connections.overdue(6.0) == [life]
    assert life.stage is Stage.CLOSED
    connections.ready(1)
    go(connections, other, Change.ANSWER, Change.PARK)
    assert connections.timed == []
    assert connections.overdue(100.0) == []
    assert other.stage is Stage.IDLE


def test_a_refused_peer_has_a_deadline_until_it_is_gone() -> None:
    connections, (life,) = opened()
    connections.ready(0)
    assert go(connections, life, Change.REFUSE)
    life.deadline = 5.0
    for _ in range(3):
        assert not go(connections, life, Change.PARK)
        assert life.stage is Stage.DRAINING
        assert connections.ready(0) is life
        assert life.stage is Stage.REFUSED
    go(connections, life, Change.PARK)
    assert connections.overdue(6.0) == [life]
    assert len(connections) == 0
    assert connections.timed == []


def test_the_longest_parked_goes_first() -> None:
    connections, lives = opened(3)
    connections.ready(0)
    go(connections, lives[0], Change.PARK)  # parked anew, so it is the last now
    assert connections.evict() is lives[1]
    assert connections.evict() is lives[2]
    assert connections.evict() is lives[0]
    assert connections.evict() is None
    assert len(connections) == 0


def test_what_is_closed_stays_closed_and_hurts_no_successor() -> None:
    """A worker may come late with one whose descriptor is another's by now."""
    connections, (life,) = opened()
    go(connections, life, Change.CLOSE)
    successor = Life(0)
    connections.add(successor)
    for change in Change:
        assert not connections.change(life, change)
    assert life.stage is Stage.CLOSED
    assert list(connections) == [successor]
    assert connections.ready(0) is successor


@given(STEPS)
def test_each_has_one_owner_and_stands_where_its_stage_says(steps: list[tuple[object, int]]) -> None:
    connections: Connections[Life] = Connections()
    owned: set[Life] = set()  # by a worker, or by the upload queue
    known: dict[int, Life] = {}
    for step, number in steps:
        life = known.get(number)
        if step == "add":
            if life is None:
                known[number] = Life(number)
                connections.add(known[number])
        elif step == "ready":
            found = connections.ready(number)
            assert (found is not None) == (life is not None and life not in owned)
            if found is not None:
                assert found is life
                owned.add(found)
        elif step in ("evict", "overdue"):
            gone = connections.overdue(number) if step == "overdue" else [connections.evict()]
            for each in gone:
                if each is None:
                    assert owned == set(known.values())
                    continue
                assert each not in owned
                assert each.stage is Stage.CLOSED
                assert step == "evict" or each.deadline < number
                del known[each.fd]
        elif isinstance(step, Change) and life in owned and step in CHANGES[life.stage]:
            before = {each for each in known.values() if each.stage in TIMED}
            first = connections.change(life, step)
            life.deadline = float(number * 3)
            assert first == (not before and life.stage in TIMED)
            if life.stage in PARKED or life.stage is Stage.CLOSED:
                owned.discard(life)
            if life.stage is Stage.CLOSED:
                del known[number]
        assert set(connections) == set(known.values())
        assert len(connections) == len(known)
        assert set(connections.timed) == {each for each in known.values() if each.stage in TIMED}
        assert {each for each in known.values() if each.stage in PARKED} == set(known.values()) - owned
