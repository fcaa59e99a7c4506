"""What is told of a file of which nothing comes."""

from __future__ import annotations

from p2pstore.errors import NoLivePeer, OriginUnavailable
from p2pstore.origins.quiet import AGAIN_SECONDS, QUIET_SECONDS, Quiet


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(path: str = "") -> tuple[Clock, Quiet]:
    clock = Clock()
    return clock, Quiet("https://h/x", path, clock)


def test_an_origin_that_sends_nothing_is_named_now_and_then() -> None:
    clock, quiet = made()
    with quiet.reading():
        clock.now += QUIET_SECONDS - 1
        assert quiet.words() == ""
        clock.now += 1
        assert quiet.words() == "nothing has come from https://h/x for 10 s; still trying"
        clock.now += AGAIN_SECONDS - 1
        assert quiet.words() == ""
        quiet.fault(OriginUnavailable(origin="https://h/x", detail="it answers 503"))
        clock.now += 1
        assert quiet.words() == "nothing has come from https://h/x for 40 s (it answers 503); still trying"
        quiet.came()
        clock.now += QUIET_SECONDS + AGAIN_SECONDS
        assert quiet.words() == "nothing has come from https://h/x for 40 s; still trying"


def test_a_file_of_several_is_named() -> None:
    clock, quiet = made("a b")
    with quiet.reading():
        clock.now += QUIET_SECONDS
        assert "'a b' of https://h/x" in quiet.words()


def test_one_that_waits_for_its_turn_is_not_blamed_on_anybody() -> None:
    clock, quiet = made()
    clock.now += 100
    assert quiet.words() == ""
    quiet.others()
    assert quiet.words() == "another node is reading the rest of https://h/x; nothing has come for 100 s"


def test_the_time_counts_from_the_first_reading_and_goes_on_after_a_fault() -> None:
    clock, quiet = made()
    clock.now += 100
    with quiet.reading():
        assert quiet.seconds == 0
        clock.now += 5
        quiet.fault(OriginUnavailable(origin="x", detail="it broke off"))
    clock.now += 5
    with quiet.reading():
        assert quiet.seconds == 10


def test_peers_that_have_it_not_are_told_of_while_that_is_so() -> None:
    clock, quiet = made()
    quiet.trouble(NoLivePeer(name="n", detail="nobody who is alive holds it"))
    assert quiet.words() == ""
    clock.now += QUIET_SECONDS
    assert quiet.words() == ""
    quiet.trouble(NoLivePeer(name="n", detail="nobody who is alive holds it"))
    assert quiet.words() == (
        "nothing of https://h/x has come for 10 s: no live peer has what is missing of 'n': "
        "nobody who is alive holds it; looking again"
    )
    clock.now += AGAIN_SECONDS
    quiet.trouble(NoLivePeer(name="n", detail="nobody who is alive holds it"))
    quiet.others()
    assert quiet.words().startswith("another node is reading the rest")
