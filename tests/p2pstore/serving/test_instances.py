"""How long a queue is, and how large a batch."""

from __future__ import annotations

import pytest

from p2pstore.serving.events import Kind
from p2pstore.serving.instances import Instance, Tracked


def prompt(name: str, work: float, begins: float = 0.0) -> Tracked:
    return Tracked(name, 100, (), 0.0, work=work, begins=begins)


def test_a_queue_is_what_is_left_of_the_first_and_all_others() -> None:
    instance = Instance("p", Kind.PREFILL, 0)
    first, second = prompt("a", 2.0), prompt("b", 3.0)
    assert instance.wait(10.0) == 0
    instance.enqueue(first, 10.0)
    instance.enqueue(second, 11.0)
    assert instance.wait(11.0) == pytest.approx(4.0)
    assert instance.wait(99.0) == pytest.approx(3.0)  # it takes longer than was thought
    assert instance.dequeue(first, 14.0) == pytest.approx(4.0)
    assert instance.wait(15.0) == pytest.approx(2.0)


def test_one_that_gave_up_in_the_queue_took_nothing() -> None:
    instance = Instance("p", Kind.PREFILL, 0)
    first, second = prompt("a", 2.0), prompt("b", 3.0)
    instance.enqueue(first, 0.0)
    instance.enqueue(second, 0.0)
    assert instance.dequeue(second, 1.0) is None
    assert instance.wait(1.0) == pytest.approx(1.0)


def test_what_it_fetches_is_waited_for() -> None:
    instance = Instance("p", Kind.PREFILL, 0)
    instance.enqueue(prompt("a", 2.0, begins=5.0), 1.0)
    assert instance.wait(1.0) == pytest.approx(6.0)


def test_a_batch_counts_its_context_once() -> None:
    instance = Instance("d", Kind.DECODE, 0)
    tracked = prompt("a", 1.0)
    tracked.expected = 50.0
    instance.assign(tracked)
    assert (instance.coming_tokens, instance.tokens) == (100, 0)
    instance.take(tracked)
    instance.take(tracked)
    assert (instance.coming_tokens, instance.tokens, instance.expected) == (0, 100, 50.0)
    instance.leave(tracked)
    assert (instance.coming_tokens, instance.tokens, instance.expected) == (0, 0, 0.0)
