"""Windows are handed out once, and values that lie in pieces come out as they went in."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.integrations import staging
from p2pstore.integrations.staging import MAX_WINDOWS, WINDOW_BYTES, Window, Windows, runs


def test_pieces_in_and_out() -> None:
    window = Window(1000)
    source = (ctypes.c_ubyte * 300)(*(n % 251 for n in range(300)))
    at = ctypes.addressof(source)
    window.take(10, [at + 200, at, at + 100], [50, 20, 7])
    assert bytes(window.view[10:87]) == bytes(source[200:250]) + bytes(source[:20]) + bytes(source[100:107])
    target = (ctypes.c_ubyte * 300)()
    to = ctypes.addressof(target)
    window.give(10, [to + 100, to], [50, 20])
    assert bytes(target[100:150]) == bytes(source[200:250])
    assert bytes(target[:20]) == bytes(source[:20])
    assert not any(target[20:100])


def test_windows_are_bounded_used_again_and_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "WINDOW_BYTES", 4096)
    windows = Windows()
    taken = [windows.get(100) for _ in range(MAX_WINDOWS)]
    assert all(taken)
    assert windows.get(1) is None
    assert taken[0] is not None
    windows.put(taken[0])
    assert windows.get(4096) is taken[0]
    windows.put(taken[0])
    larger = windows.get(10_000)
    assert larger is not None
    assert len(larger.view) == 10_000
    assert windows.get(1) is None, "the larger one has taken a small one's place"


@given(st.lists(st.integers(0, WINDOW_BYTES + 1), max_size=30))
def test_runs_are_all_places_in_order_and_fit(sizes: list[int]) -> None:
    found = list(runs(sizes))
    assert [place for run in found for place in run] == list(range(len(sizes)))
    for run in found:
        assert len(run) == 1 or sum(sizes[place] for place in run) <= WINDOW_BYTES
