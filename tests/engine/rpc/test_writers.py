"""What writers remember; the rest is in ``test_compiled.py``."""

from __future__ import annotations

import pytest

from engine.rpc import writers
from engine.rpc.codes import Code
from engine.rpc.compiled import Codec
from engine.rpc.messages import Memory, Replica, Replicas
from engine.rpc.methods import METHODS, NEWEST

LIST = METHODS["BatchGetReplicaList"].answers[NEWEST]


def _found(endpoint: str, number: int = 1) -> Replicas:
    return Replicas([Replica(number, Memory(2, 3, "tcp", endpoint), 3)], 10_000, None)


def test_places_in_one_segment_are_written_alike() -> None:
    for number in range(3):
        found = [_found("a:1", number), Code.NOT_FOUND, _found("b:1", number), _found("\udcff", number)]
        assert LIST.read(LIST.write(found)) == found


def test_what_is_remembered_of_segments_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "MAX_TEXTS", 3)
    monkeypatch.setattr(writers, "MAX_TEXT", 100)
    codec = Codec(LIST.kind)
    for length in (*range(1, 120), 300, 70_000):
        found = [_found("h" * length)]
        assert codec.read(codec.write(found)) == found
    for _, write in codec._writers.values():
        for known in write.__globals__.values():
            if isinstance(known, writers._Texts):
                assert len(known) <= 3
                assert all(len(each) <= 100 for each in known.values())
