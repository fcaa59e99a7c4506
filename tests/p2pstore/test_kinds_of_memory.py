"""A store takes whatever memory the engine takes, by the same rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.memory.lent import byte_view
from p2pstore import P2PStore
from p2pstore.errors import UsageError
from tests.engine.memory.kinds import READ_ONLY, REFUSED, WRITABLE, content


@pytest.fixture(scope="module")
def store() -> Iterator[P2PStore]:
    with P2PStore("memory://kinds", node="one") as made:
        yield made


@pytest.fixture(scope="module")
def other(store: P2PStore) -> Iterator[P2PStore]:
    with P2PStore("memory://kinds", node="two") as made:
        yield made


@pytest.mark.parametrize("name", WRITABLE)
def test_memory_is_served_and_received_in_place(store: P2PStore, other: P2PStore, name: str) -> None:
    source, alone, named = (WRITABLE[name]() for _ in range(3))
    expected = content(source)
    for made in (alone, named):
        with byte_view(made, "it", writable=True) as view:
            view[:] = bytes(len(view))
    store.register("one", source)
    store.register("dir", {"t": source})
    try:
        other.get_into("one", alone)
        other.get_into("dir", {"t": named})
    finally:
        store.unregister("one")
        store.unregister("dir")
    assert content(alone) == content(named) == expected


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only_memory_is_served_and_not_received_into(store: P2PStore, other: P2PStore, name: str) -> None:
    made = READ_ONLY[name]()
    store.register("ro", made)
    try:
        with pytest.raises(UsageError, match="read-only"):
            other.get_into("ro", made)
    finally:
        store.unregister("ro")


OF_CUDA = {"CUDA over DLPack", "CUDA's array interface"}
"""What a store takes, as ``test_gpu_memory.py`` shows, and an engine does not."""


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - {"text"} - OF_CUDA))
def test_what_is_no_memory_is_refused_in_words(store: P2PStore, other: P2PStore, name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(UsageError, match=f"buffer 't'.*{words}"):
        store.register("bad", {"t": make()})
    with pytest.raises(UsageError, match=words):
        store.register("bad", make())
    store.register("good", {"t": bytes(192)})
    try:
        with pytest.raises(UsageError, match=words):
            other.get_into("good", {"t": make()})
    finally:
        store.unregister("good")
