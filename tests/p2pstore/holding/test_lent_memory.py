"""Memory that is registered can be unmapped when it is registered no more, and when registering it failed."""

from __future__ import annotations

import mmap
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pstore import P2PStore
from p2pstore.errors import ObjectExists, UsageError
from p2pstore.holding import content as registered
from p2pstore.objects.memory_objects import hash_views
from tests.p2pstore.samples import MIB, content

DATA = content(2 * MIB, 12)
WAIT = 60.0


@pytest.fixture
def store() -> Iterator[P2PStore]:
    with P2PStore(f"memory://{secrets.token_hex(8)}", node="a") as made:
        yield made


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, len(DATA)) as made:
        made[:] = DATA
        yield made


def test_after_unregistering_what_was_read(store: P2PStore, memory: mmap.mmap) -> None:
    store.register("n", memory)
    with P2PStore(f"memory://{secrets.token_hex(8)}", node="b") as other:
        room = bytearray(len(DATA))
        other.get_into("n", room, peers=[store.control])
        assert room == DATA
    store.unregister("n")
    memory.close()


def test_after_unregistering_several(store: P2PStore) -> None:
    maps = {path: mmap.mmap(-1, MIB + len(path)) for path in ("a", "b/c")}
    store.register("n", maps)
    store.unregister("n")
    for each in maps.values():
        each.close()


def test_after_other_memory_took_its_name(store: P2PStore, memory: mmap.mmap) -> None:
    store.register("n", memory)
    store.register("n", bytes(100), force=True)
    memory.close()


def test_of_two_with_the_same_content_each_is_let_go_by_itself(store: P2PStore, memory: mmap.mmap) -> None:
    second = mmap.mmap(-1, len(DATA))
    second[:] = DATA
    store.register("one", memory)
    store.register("two", second)
    store.unregister("one")
    memory.close()
    with P2PStore(f"memory://{secrets.token_hex(8)}", node="b") as other:
        room = bytearray(len(DATA))
        other.get_into("two", room, peers=[store.control])
        assert room == DATA
    store.unregister("two")
    second.close()


def test_after_the_store_was_closed(store: P2PStore, memory: mmap.mmap) -> None:
    store.register("n", memory)
    store.close()
    memory.close()


def test_where_the_name_is_taken(store: P2PStore, memory: mmap.mmap, tmp_path: Path) -> None:
    store.register("n", b"other")
    with pytest.raises(ObjectExists) as caught:
        store.register("n", memory)
    memory.close()
    assert caught.value.__traceback__ is not None  # it has kept the frames


@pytest.mark.parametrize("wrong", [{"chunk_size": 7}, {"hash": "none"}], ids=str)
def test_where_it_cannot_be_hashed_so(store: P2PStore, memory: mmap.mmap, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        store.register("n", memory, **wrong)
    memory.close()
    assert caught.value.__traceback__ is not None


def test_where_another_of_several_does_not_do(store: P2PStore, memory: mmap.mmap) -> None:
    with pytest.raises(UsageError) as caught:
        store.register("n", {"a": memory, "b": np.zeros((64, 64), np.uint8)[:, ::2]})
    memory.close()
    assert caught.value.__traceback__ is not None


def test_after_ctrl_c(store: P2PStore, memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def hash_slowly(*args: Any, cancelled: threading.Event, **options: Any) -> Any:
        signal.pthread_kill(main, signal.SIGINT)
        assert cancelled.wait(WAIT)
        return hash_views(*args, cancelled=cancelled, **options)

    monkeypatch.setattr(registered, "hash_views", hash_slowly)
    with pytest.raises(KeyboardInterrupt) as caught:
        store.register("n", memory)
    memory.close()
    assert caught.value.__traceback__ is not None
