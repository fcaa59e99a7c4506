"""What writers remember; the rest is in ``test_compiled.py``."""

from __future__ import annotations

import pytest

from engine.rpc import framing, writers
from engine.rpc.codes import Code
from engine.rpc.compiled import Codec
from engine.rpc.messages import Lone, Memory, Replica, Replicas
from engine.rpc.methods import GENERATIONS, METHODS, NEWEST

LIST = METHODS["BatchGetReplicaList"].answers[NEWEST]


def _found(endpoint: str, number: int = 1) -> Replicas:
    return Replicas([Replica(number, Memory(2, 3, "tcp", endpoint), 3)], 10_000, None)


def test_places_in_one_segment_are_written_alike() -> None:
    for number in range(3):
        found = [_found("a:1", number), Code.NOT_FOUND, _found("b:1", number), _found("\udcff", number)]
        assert LIST.read(LIST.write(found)) == found


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("endpoint", ["a:1", "h" * 300, "\udcff"])
@pytest.mark.parametrize("checksum", [None, 7])
def test_a_value_in_one_place_is_written_as_if_it_were_nested(
    generation: str, endpoint: str, checksum: int | None
) -> None:
    lone = Lone(5, 4096, 1 << 40, ("tcp", endpoint), 3, 10_000, checksum)
    told = Replicas(lone.replicas, 10_000, checksum)
    for call, nested in (("GetReplicaList", told), ("PutStart", lone.replicas)):
        codec = METHODS[call].answers[generation]
        assert codec.write(lone) == codec.write(nested)
        for _ in range(2):
            assert codec.answer(9, lone) == framing.answer(9, codec.write(nested))
        batch = METHODS[f"Batch{call}"].answers[generation]
        for count in (1, 300):
            mixed = [lone, Code.NOT_FOUND, lone] * count
            assert batch.write(mixed) == batch.write([nested, Code.NOT_FOUND, nested] * count)


def test_what_is_remembered_of_segments_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "MAX_TEXTS", 3)
    monkeypatch.setattr(writers, "MAX_TEXT", 100)
    codec = Codec(LIST.kind)
    for length in (*range(1, 120), 300, 70_000):
        found = [_found("h" * length)]
        assert codec.read(codec.write(found)) == found
        assert codec.read(codec.write([Lone(1, 2, 3, ("tcp", "h" * length), 3, 10_000)])) == found
    for _, write in codec._writers.values():
        for known in write.__globals__.values():
            if isinstance(known, writers._Owners):
                assert len(known) <= 3
            if isinstance(known, writers._Texts):
                assert len(known) <= 3
                assert all(len(each) <= 100 for each in known.values())
