"""One object for what many entries have, and no more than so many."""

from __future__ import annotations

import pytest

from p2pstore.kv.pool import shared as s
from p2pstore.kv.pool.shared import Shared


def test_equal_ids_and_sizes_are_one_object() -> None:
    shared = Shared()
    first, second = (bytes(bytearray(b"a" * 16)) for _ in range(2))
    assert shared.id(first) is shared.id(second) is first
    large, equal = (int(text) for text in ("123456789", "123456789"))
    assert shared.size(large) is shared.size(equal) is large


def test_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "MAX_IDS", 3)
    monkeypatch.setattr(s, "MAX_SIZES", 3)
    shared = Shared()
    for number in range(1000, 1010):
        assert shared.id(number.to_bytes(16, "big")) == number.to_bytes(16, "big")
        assert shared.size(number) == number
    assert len(shared._ids) <= 3
    assert len(shared._sizes) <= 3
