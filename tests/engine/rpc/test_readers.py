"""What readers remember, and how they take many texts at once; the rest is in ``test_compiled.py``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rpc import readers
from engine.rpc import types as t
from engine.rpc.compiled import MALFORMED, Codec
from engine.rpc.messages import ReplicateConfig
from engine.rpc.methods import METHODS, NEWEST
from engine.rpc.readers import reader
from engine.rpc.writers import writer

STRINGS = t.Vector(t.STRING)
START = METHODS["BatchPutStart"].requests[NEWEST].codec
ID = bytes(16)


@given(st.lists(st.sampled_from(["", "a", "b", "ab", "ä", "é", "\udcff", "\x80\x80"]), max_size=6))
def test_texts_of_one_length_are_those_of_any(texts: list[str]) -> None:
    for width in (1, 2, 4):
        assert reader(STRINGS, width)(writer(STRINGS, width)(texts), 0) == texts


@pytest.mark.parametrize("wire", ["02 01 61", "02 01 61 02 62", "02 01 61 01", "02 01 61 01 62 00", "02"])
def test_texts_that_seem_to_be_of_one_length_and_are_not_there_are_refused(wire: str) -> None:
    with pytest.raises(MALFORMED):
        reader(STRINGS, 1)(bytes.fromhex(wire), 0)


def _start(number: int, **config: Any) -> tuple[Any, ...]:
    lists: dict[str, Any] = {"preferred_segments": [], "preferred_nof_segments": []}
    return (ID, [f"key {number}"], [number], ReplicateConfig(**(lists | config)), "default")


def test_what_callers_say_again_and_again_is_remembered_and_nothing_else() -> None:
    assert START is not None
    for number in range(5):
        for host in ("a", "b"):
            args = _start(number, host_id=host, preferred_segments=["x"])
            assert START.read(START.write(args)) == args
    first, second = (START.read(START.write(_start(number))) for number in (1, 2))
    assert first[3] is second[3]
    assert first[1] != second[1]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert START is not None
    monkeypatch.setattr(readers, "MAX_TAILS", 3)
    monkeypatch.setattr(readers, "MAX_TAIL", 100)
    codec = Codec(START.kind)
    for length in range(120):
        args = _start(1, host_id="h" * length)
        assert codec.read(codec.write(args)) == args
    names = codec._readers[4][2].__globals__
    (known,) = (each for name, each in names.items() if name.startswith("k") and isinstance(each, dict))
    assert 0 < len(known) <= 3
    assert max(map(len, known)) <= 100
    with pytest.raises(MALFORMED):
        codec.read(codec.write(_start(1)) + b"\0")


@pytest.mark.parametrize(
    "metas",
    [
        [("key-1", None), ("key-2", None), ("key-3", None)],
        [("key-1", 1), ("key-2", (1 << 64) - 1), ("key-3", 0)],
        [("key-1", 1), ("key-2", None), ("key-3", 0)],
        [("key-1", None), ("key-2", 7)],
        [("key-1", None), ("longer", None)],
        [("k\u00e9y", None), ("key1", None)],
        [("\udcff", 5), ("a", 5), ("b", 5)],
        [("", None), ("", None)],
        [("", 1), ("", 2)],
        [("x" * 255, None)] * 3,
        [("x" * 300, 9), ("y" * 300, 9)],
        [("only", None)],
        [],
    ],
    ids=lambda metas: "-".join(f"{len(key)}{'s' * (checksum is not None)}" for key, checksum in metas) or "none",
)
def test_keys_with_their_checksums_are_read_however_alike_they_are(metas: list[tuple[str, int | None]]) -> None:
    codec = METHODS["BatchPutEnd"].requests[NEWEST].codec
    assert codec is not None
    wire = codec.write((bytes(16), metas, 4, "default"))
    assert codec.read(wire)[1] == metas
    for end in range(wire.index(b"\0", 5) + 18, len(wire)):
        with pytest.raises(MALFORMED):
            codec.read(wire[:end])
