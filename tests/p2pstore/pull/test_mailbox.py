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
