"""New versions from Python: the same that ``mooncake watch`` prints."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from p2pstore import P2PStore
from p2pstore.errors import BadName, Closed, UsageError

WAIT = 60.0
SOON = 0.05
"""Seconds in which what is not there does not come."""


@pytest.fixture
def store() -> Iterator[P2PStore]:
    with P2PStore("memory://watched") as made:
        yield made


def put(store: P2PStore, name: str, data: bytes, tag: str = "") -> str:
    manifest: str = store.register(name, data, force=True, tags=[tag] if tag else [])["manifest"]
    return manifest


def versions(found: Iterator[dict[str, Any]]) -> list[str]:
    return [each["manifest"] for each in found]


def test_each_version_from_the_call_on(store: P2PStore) -> None:
    one = put(store, "w", b"one")
    put(store, "w/other", b"another name")
    watch = store.watch("w", timeout=WAIT)
    two = put(store, "w", b"two!!")
    found = next(watch)
    assert found == {
        "name": "w", "tag": "", "reference": f"w@sha256:{two}", "manifest": two, "previous": one, "size": 5,
        "files": 1, "creator": store.node, "created": found["created"],
    }  # fmt: skip
    put(store, "w", b"three")
    four = put(store, "w", b"four")
    assert next(watch)["manifest"] == four, "of those that came while none was asked for, the last"
    watch.close()  # type: ignore[attr-defined]


def test_it_ends_when_none_has_come_in_time(store: P2PStore) -> None:
    assert versions(store.watch("none", timeout=SOON)) == []
    assert versions(store.watch("none", timeout=0)) == []
    put(store, "w", b"one")
    assert versions(store.watch("w", timeout=SOON)) == []


def test_the_initial_one_and_one_that_is_not_there_yet(store: P2PStore) -> None:
    one = put(store, "w", b"one")
    assert next(store.watch("w", initial=True, timeout=WAIT))["manifest"] == one
    later = store.watch("later", timeout=WAIT)
    timer = threading.Timer(SOON, put, (store, "later", b"now"))
    timer.start()
    assert next(later)["previous"] == ""
    timer.join(WAIT)


def test_a_tag(store: P2PStore) -> None:
    put(store, "w", b"one", "best")
    watch = store.watch("w:best", timeout=WAIT)
    put(store, "w", b"two")
    three = put(store, "w", b"three", "best")
    found = next(watch)
    assert (found["tag"], found["manifest"]) == ("best", three)


def test_closing_the_store_ends_it(store: P2PStore) -> None:
    raised: list[BaseException] = []
    begun = threading.Event()

    def iterate() -> None:
        begun.set()
        try:
            next(store.watch("w"))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=iterate)
    thread.start()
    assert begun.wait(WAIT)
    time.sleep(SOON)
    store.close()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert [type(error) for error in raised] == [Closed]
    with pytest.raises(Closed):
        store.watch("w")


def test_what_cannot_be_watched(store: P2PStore) -> None:
    with pytest.raises(UsageError, match="one version for ever"):
        store.watch("w@sha256:12345678")
    with pytest.raises(BadName):
        store.watch("a b")
    with pytest.raises(UsageError, match="seconds"):
        store.watch("w", timeout="soon")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="notes"):
        store.watch("w", note=1)  # type: ignore[arg-type]
