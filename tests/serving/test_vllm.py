"""Two real vLLM engines on our connector: one computes prompts, the other takes them from the pool, whatever befalls it.

In the order of the file: what is killed stays dead for the tests behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving import tiny_model
from tests.serving.conftest import CommandMaster, Start, words
from tests.serving.engines import Answer, Engine

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]

LONG = 60.0

MOST = 1350
"""Of 1,500 tokens: more than nine tenths."""


def ours(role: str, **extra: Any) -> dict[str, Any]:
    return {
        "kv_connector": "MooncakeStoreConnector",
        "kv_connector_module_path": "p2pstore.integrations.vllm",
        "kv_role": role,
        "kv_connector_extra_config": extra,
    }


@pytest.fixture(scope="module")
def engines(start: Start, mooncake_json: dict[str, str]) -> tuple[Engine, Engine]:
    """One that computes and one that takes; nothing is said to them but where the store is."""
    producer = start("producer", transfer=ours("kv_producer"), variables=mooncake_json)
    consumer = start("consumer", transfer=ours("kv_consumer"), variables=mooncake_json)
    return producer.wait(), consumer.wait()


def once_stored(take: Callable[[], Answer]) -> Answer:
    """The first answer that had most of its prompt from elsewhere: blocks are put while the first answer is given.

    What an engine has computed it keeps, so that each attempt is with another prompt.
    """
    end = time.monotonic() + LONG
    while True:
        found = take()
        if found.cached >= MOST or time.monotonic() > end:
            return found


def test_most_of_a_prompt_comes_from_the_store_and_the_answer_is_the_same(
    engines: tuple[Engine, Engine], prompt: list[int]
) -> None:
    producer, consumer = engines
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
        assert computed.cached == 0
        assert (taken.text, taken.finish) == (computed.text, "length")


def test_other_weights_under_the_same_name_are_not_found(
    engines: tuple[Engine, Engine], start: Start, mooncake_json: dict[str, str], tmp_path: Path, prompt: list[int]
) -> None:
    """vLLM's own connector takes 1,408 of 1,500 tokens from the wrong model."""
    producer, _ = engines
    computed = producer.ask(prompt)
    other = start(
        "other", weights=tiny_model.make(tmp_path / "tiny", seed=1), transfer=ours("kv_both"), variables=mooncake_json
    ).wait()
    try:
        taken = other.ask(prompt)
        assert taken.cached == 0
        assert taken.text != computed.text
        again = other.ask(prompt)
        assert (again.text, again.cached >= MOST) == (taken.text, True), "it has them itself by now"
    finally:
        other.end()


def test_a_dead_master_is_a_miss_and_one_that_is_back_is_used(
    engines: tuple[Engine, Engine], master: CommandMaster, prompt: list[int]
) -> None:
    producer, consumer = engines
    master.kill()
    computed = producer.ask(prompt)
    taken = consumer.ask(prompt)
    assert (taken.text, taken.finish, taken.cached) == (computed.text, "length", 0)
    master.start()
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


def test_blocks_whose_owner_is_dead_are_computed(engines: tuple[Engine, Engine], prompt: list[int]) -> None:
    """vLLM's default ends such requests with an error."""
    producer, consumer = engines
    computed = producer.ask(prompt)
    time.sleep(1.0)
    producer.kill()
    taken = consumer.ask(prompt)
    assert (taken.text, taken.finish) == (computed.text, "length")
    again = consumer.ask(words("after"))
    assert again.finish == "length"
