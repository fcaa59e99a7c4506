"""Two engines of which one takes what the other has computed."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.serving.conftest import words
from tests.serving.engines import Answer, Engine

LONG = 60.0

MOST = 1350
"""Of 1,500 tokens: more than nine tenths."""


def once_stored(take: Callable[[], Answer]) -> Answer:
    """The first answer that had most of its prompt from elsewhere: blocks are put while the first answer is given.

    What an engine has computed it keeps, so that each attempt is with another prompt.
    """
    end = time.monotonic() + LONG
    while True:
        found = take()
        if found.cached >= MOST or time.monotonic() > end:
            return found


def through_the_store(producer: Engine, consumer: Engine, prompt: list[int]) -> list[tuple[Answer, Answer]]:
    """What the one computed the other takes, and answers the same; all answers of both."""
    turn = iter(range(1000))
    pairs: list[tuple[Answer, Answer]] = []

    def take() -> Answer:
        text = [*words(f"turn {next(turn)}", 10), *prompt[10:]]
        computed = producer.ask(text)
        time.sleep(0.5)
        pairs.append((computed, consumer.ask(text)))
        return pairs[-1][1]

    assert once_stored(take).cached >= MOST, consumer.last_words()
    for computed, taken in pairs:
        assert (taken.text, taken.finish) == (computed.text, "length")
    return pairs
