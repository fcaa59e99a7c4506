"""When an instance is taken out and in again, on a clock of the test's."""

from __future__ import annotations

from p2pstore.serving.proxy.health import DOUBT_SECONDS, GOOD_PROBES, MAX_FAILURES, PROBE_SECONDS, Health, State


def up() -> Health:
    health = Health(0.0)
    assert health.probed(None, 1.0)
    return health


def test_a_new_instance_needs_one_good_probe() -> None:
    health = Health(0.0)
    assert (health.state, health.next_probe) == (State.NEW, 0.0)
    assert not health.probed("cannot connect", 1.0, refused=True)
    assert (health.state, health.why) == (State.NEW, "cannot connect")
    assert health.next_probe > 1.0
    assert health.probed(None, 2.0)
    assert (health.state, health.why, health.since) == (State.UP, "", 2.0)
    assert health.next_probe == 2.0 + PROBE_SECONDS


def test_several_bad_probes_in_a_row_exclude_it() -> None:
    health = up()
    for number in range(MAX_FAILURES - 1):
        assert not health.probed("slow", 2.0 + number)
        assert health.next_probe == 2.0 + number + DOUBT_SECONDS
    assert not health.probed(None, 5.0)  # it was a moment's
    for _ in range(MAX_FAILURES - 1):
        assert not health.probed("slow", 6.0)
    assert health.probed("slow", 7.0)
    assert (health.state, health.why, health.since) == (State.DOWN, "slow", 7.0)


def test_where_nobody_listens_it_is_excluded_at_once() -> None:
    health = up()
    assert health.probed("refused", 2.0, refused=True)
    assert health.state is State.DOWN
    health = up()
    assert health.refused("refused", 2.0)
    assert health.state is State.DOWN
    assert not health.refused("refused", 3.0)


def test_it_returns_once_it_is_well_for_a_while() -> None:
    health = up()
    health.refused("refused", 2.0)
    pauses = []
    for _ in range(10):
        now = health.next_probe
        assert not health.probed("refused", now, refused=True)
        pauses.append(health.next_probe - now)
    assert max(pauses) > 4 * min(pauses)
    for _ in range(GOOD_PROBES - 1):
        assert not health.probed(None, 100.0)
    assert not health.probed("again", 101.0)
    for _ in range(GOOD_PROBES - 1):
        assert not health.probed(None, 102.0)
    assert health.probed(None, 103.0)
    assert health.state is State.UP


def test_a_failed_request_makes_the_next_probe_come_at_once() -> None:
    health = up()
    health.suspect(1.5)
    assert health.next_probe == 1.5
    assert health.state is State.UP
    health.suspect(3.0)
    assert health.next_probe == 1.5
