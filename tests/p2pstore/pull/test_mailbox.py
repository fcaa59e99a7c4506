"""One thread takes what others add, in order; it is woken for what is worth it, and loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from p2pstore.pull.mailbox import Mailbox

WAIT = 60.0


def when_waited_for(mailbox: Mailbox[int], monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Call this as soon as a thread is about to sleep."""

    class Bell(SimpleQueue[None]):
        def get(self, block: bool = True, timeout: float | None = None) -> None:
            act()
            super().get(block, timeout)

    monkeypatch.setattr(mailbox, "_bell", Bell())


def all_of(mailbox: Mailbox[int]) -> list[int]:
    taken = []
    while (message := mailbox.take()) is not None:
        taken.append(message)
    return taken


def test_messages_come_in_order_whichever_way_they_were_added() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.leave(1)
    mailbox.put(2)
    mailbox.leave(3)
    assert len(mailbox) == 3
    mailbox.wait(WAIT)
    assert all_of(mailbox) == [1, 2, 3]
    assert len(mailbox) == 0


def test_who_waits_is_woken_by_one_and_not_by_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox: Mailbox[int] = Mailbox()
    waits, woke = threading.Event(), threading.Event()
    when_waited_for(mailbox, monkeypatch, waits.set)

    def run() -> None:
        mailbox.wait(WAIT)
        woke.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert waits.wait(WAIT)
    mailbox.leave(1)
    assert not woke.wait(0.1)
    began = time.monotonic()
    mailbox.put(2)
    assert woke.wait(WAIT / 2)
    thread.join()
    assert time.monotonic() - began < WAIT / 2
    assert all_of(mailbox) == [1, 2]


def test_what_was_left_is_there_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.wait(0.01)
    assert mailbox.take() is None
    when_waited_for(mailbox, monkeypatch, lambda: mailbox.leave(1))
    mailbox.wait(0.1)
    assert mailbox.take() == 1


def test_what_was_not_taken_is_not_waited_for() -> None:
    mailbox: Mailbox[int] = Mailbox()
    for number in range(3):
        mailbox.put(number)
    mailbox.wait(WAIT)
    assert mailbox.take() == 0
    began = time.monotonic()
    mailbox.wait(WAIT)
    assert time.monotonic() - began < WAIT / 2
    assert all_of(mailbox) == [1, 2]


def test_nobody_sleeps_over_a_message() -> None:
    mailbox: Mailbox[int] = Mailbox()
    count, senders = 3000, 4
    taken: list[int] = []
    slept: list[float] = []

    def send(first: int) -> None:
        for number in range(first, first + count):
            mailbox.put(number)

    threads = [threading.Thread(target=send, args=(n * count,)) for n in range(senders)]
    for thread in threads:
        thread.start()
    while len(taken) < senders * count:
        began = time.monotonic()
        mailbox.wait(WAIT)
        slept.append(time.monotonic() - began)
        taken += all_of(mailbox)
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(senders * count))
    assert max(slept) < WAIT / 2
    for n in range(senders):
        own = [number for number in taken if n * count <= number < (n + 1) * count]
        assert own == sorted(own)


def test_who_brings_a_message_works_it_off_with_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox: Mailbox[int] = Mailbox()
    taken: list[int] = []
    mailbox.leave(1)
    mailbox.bring(2, lambda: taken.extend(all_of(mailbox)))
    assert taken == [1, 2]
    assert not mailbox.turn.locked()
    when_waited_for(mailbox, monkeypatch, lambda: mailbox.leave(3))
    began = time.monotonic()
    mailbox.wait(0.05)
    assert time.monotonic() - began >= 0.04, "nobody rang"


def test_what_comes_while_somebody_has_the_turn_wakes_the_thread_afterwards() -> None:
    mailbox: Mailbox[int] = Mailbox()
    taken: list[int | None] = []

    def work() -> None:
        taken.append(mailbox.take())
        other = threading.Thread(target=mailbox.bring, args=(2, lambda: taken.append(-1)))
        other.start()
        other.join(WAIT)

    mailbox.bring(1, work)
    assert taken == [1], "the other did not wait, and did nothing"
    mailbox.take()
    mailbox.wait(WAIT)  # returns, since it was rung


def test_what_the_thread_was_woken_for_is_left_to_it() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put(1)
    mailbox.bring(2, lambda: pytest.fail("the thread is about to"))
    mailbox.wait(WAIT)
    assert all_of(mailbox) == [1, 2]


def test_work_that_fails_gives_the_turn_back() -> None:
    mailbox: Mailbox[int] = Mailbox()

    def work() -> None:
        raise ValueError("of no use")

    with pytest.raises(ValueError, match="of no use"):
        mailbox.bring(1, work)
    assert not mailbox.turn.locked()
    mailbox.wait(WAIT)
    assert all_of(mailbox) == [1]


def test_nothing_is_lost_or_taken_twice_or_by_two_at_once() -> None:
    mailbox: Mailbox[int] = Mailbox()
    taken: list[int] = []
    inside = threading.Semaphore(1)
    over = threading.Event()

    def work() -> None:
        assert inside.acquire(blocking=False)
        taken.extend(all_of(mailbox))
        inside.release()

    def run() -> None:
        while not over.is_set() or len(mailbox):
            mailbox.wait(0.01)
            with mailbox.turn:
                work()

    def bring(first: int) -> None:
        for number in range(first, 3000, 3):
            if number % 7:
                mailbox.bring(number, work)
            else:
                mailbox.put(number)

    threads = [threading.Thread(target=bring, args=(first,)) for first in range(3)]
    owner = threading.Thread(target=run)
    owner.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    over.set()
    owner.join(WAIT)
    assert sorted(taken) == list(range(3000))
    for first in range(3):
        mine = [number for number in taken if number % 3 == first]
        assert mine == sorted(mine), "each thread's come in their order"
