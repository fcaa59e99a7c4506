"""Who sent wrong bytes is remembered, and no more than a bounded number."""

from __future__ import annotations

from p2pstore.cluster import wrong_bytes as module
from p2pstore.cluster.wrong_bytes import WrongBytes


def test_what_was_added_is_told() -> None:
    suspects = WrongBytes()
    suspects.add("d", "a", 1)
    suspects.add("d", "b", 2)
    suspects.add("d", "a", 3)
    assert suspects.of("d") == {"a": 3, "b": 2}
    assert suspects.of("other") == {}


def test_it_is_bounded(monkeypatch: object) -> None:
    suspects = WrongBytes()
    for number in range(module.MAX_OBJECTS + 1):
        suspects.add(f"object {number}", "a", 1)
    assert suspects.of("object 0") == {}
    for number in range(2 * module.MAX_EACH):
        suspects.add("d", f"peer {number}", 1)
    assert len(suspects.of("d")) == module.MAX_EACH
