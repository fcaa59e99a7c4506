"""Who fails several requests in a row is passed over for a while, on a clock of the test's."""

from __future__ import annotations

from p2pstore.serving.ejection import EJECT_FAILURES, EJECTIONS, Ejection


def ejected(at: float = 0.0) -> Ejection:
    made = Ejection()
    for number in range(EJECT_FAILURES - 1):
        assert made.failed(at + number / 100) is None
    assert made.failed(at + 0.5) == EJECTIONS.after(1)
    assert made.until == at + 0.5 + EJECTIONS.after(1)
    return made


def test_a_success_between_failures_makes_them_forgotten() -> None:
    made = Ejection()
    for number in range(10 * EJECT_FAILURES):
        assert made.failed(float(number)) is None
        if number % (EJECT_FAILURES - 1) == 0:
            assert not made.served(float(number))
    assert made.until == 0.0


def test_who_fails_at_once_after_its_return_is_ejected_for_longer_each_time() -> None:
    made = ejected()
    pauses = []
    for _ in range(12):
        assert made.failed(made.until - 0.01) is None, "what was there before counts no more"
        pauses.append(made.failed(made.until))
    assert pauses == [EJECTIONS.after(times) for times in range(2, 14)]
    assert pauses[-1] == EJECTIONS.last


def test_who_does_well_after_its_return_begins_anew() -> None:
    made = ejected()
    made.served(made.until + 1.0)
    assert made == Ejection(since=made.since)
    assert ejected(1000.0).until == 1000.5 + EJECTIONS.after(1)


def test_what_was_begun_before_it_went_wrong_says_nothing() -> None:
    made = ejected(100.0)
    until = made.until
    assert not made.served(99.9)
    assert made.until == until
    assert made.served(100.9)
    assert made.until == 0.0
