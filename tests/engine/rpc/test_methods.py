"""The table of calls: ids and hashes as the real releases have them, and what each form may mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.rpc.methods import EXTENSIONS, FORMS, FUNCTIONS, GENERATIONS, MASTER, METHODS, NEWEST, held
from engine.rpc.types import STRING, U64, function_id

ROWS = [
    [part.split() for part in line.split(" | ")]
    for line in Path(__file__).with_name("wire.txt").read_text().splitlines()
    if not line.startswith("#")
]
"""What the releases were found to have in them; ``tests/interop/test_wire.py`` looks again."""


def test_the_table_names_what_we_know() -> None:
    assert [row[0][0] for row in ROWS] == list(METHODS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][0])
def test_each_function_and_hash_is_the_releases(row: list[list[str]]) -> None:
    (name, function), *forms = row
    method = METHODS[name]
    assert f"{method.function:08x}" == function
    assert FUNCTIONS[method.function] is method
    assert [generation for generation, _, _ in forms] == list(method.requests)
    for generation, request, answer in forms:
        codec = method.requests[generation].codec
        assert f"{codec.hash if codec else 0:08x}" == request
        assert f"{method.answers[generation].hash:08x}" == answer


def test_each_form_is_found_by_function_and_hash() -> None:
    for key, form in FORMS.items():
        assert key == form.method.function << 32 | (form.codec.hash if form.codec else 0)
        for generation in form.generations:
            assert form.method.requests[generation] is form


def test_what_tells_generations_apart() -> None:
    """Puts do, for each; a bare key does not, though what it is answered differs."""
    for generation in GENERATIONS:
        assert METHODS["PutStart"].requests[generation].generations == (generation,)
    assert METHODS["GetReplicaList"].requests["0.3.9"].generations == ("0.3.9", "0.3.11")
    assert METHODS["GetReplicaList"].requests[NEWEST].generations == ("0.3.12", "0.3.13")
    answers = METHODS["GetReplicaList"].answers
    assert len({codec.kind.literal for codec in answers.values()}) == 3


def test_the_form_of_a_generation_is_the_last_that_began() -> None:
    since = {"0.3.11": STRING, "0.3.13": U64}
    assert [held(since, generation) for generation in GENERATIONS] == [None, STRING, STRING, U64]
    assert held(STRING, "0.3.9") is STRING


def test_calls_of_ours_are_none_of_upstreams_and_can_be_none_of_its_later_ones() -> None:
    assert not EXTENSIONS.keys() & METHODS.keys()
    for name, method in EXTENSIONS.items():
        assert FUNCTIONS[method.function] is method
        assert method.function != function_id(name, MASTER)
        assert list(method.requests) == [NEWEST]
