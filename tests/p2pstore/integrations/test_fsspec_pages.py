"""Pages of a file: every read is right, none crosses a chunk, and what was read is not brought again."""

from __future__ import annotations

import random

import pytest

import p2pstore.integrations.fsspec_pages
from p2pstore.integrations.fsspec_pages import Pages
from tests.p2pstore.samples import content

PAGE, MOST = 16, 4


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p2pstore.integrations.fsspec_pages, "PAGE_BYTES", PAGE)
    monkeypatch.setattr(p2pstore.integrations.fsspec_pages, "MAX_PAGES", MOST)


class Source:
    def __init__(self, size: int) -> None:
        self.data = content(size)
        self.asked: list[tuple[int, int]] = []

    def __call__(self, begin: int, end: int) -> bytes:
        assert 0 <= begin < end <= len(self.data)
        self.asked.append((begin, end))
        return self.data[begin:end]


@pytest.mark.parametrize("origin", [0, 1, 5, PAGE, 3 * PAGE + 7])
def test_any_read_is_right(origin: int) -> None:
    source = Source(10 * PAGE + 3)
    pages = Pages(source, len(source.data), origin)
    chance = random.Random(origin)
    for _ in range(2000):
        begin = chance.randrange(len(source.data) + 5)
        end = begin + chance.choice([0, 1, 4, PAGE, 3 * PAGE, 20 * PAGE])
        assert pages.read(begin, end) == source.data[begin:end]
        assert len(pages._pages) <= MOST


def test_what_was_read_is_not_brought_again() -> None:
    source = Source(3 * PAGE)
    pages = Pages(source, 3 * PAGE)
    for at in range(3 * PAGE):
        pages.read(at, at + 1)
    assert source.asked == [(0, PAGE), (PAGE, 2 * PAGE), (2 * PAGE, 3 * PAGE)]


def test_what_is_missing_comes_in_one_call() -> None:
    source = Source(4 * PAGE)
    pages = Pages(source, 4 * PAGE)
    pages.read(PAGE, PAGE + 1)
    source.asked.clear()
    assert pages.read(3, 4 * PAGE) == source.data[3:]
    assert source.asked == [(0, PAGE), (2 * PAGE, 4 * PAGE)]


def test_a_page_ends_at_the_origin() -> None:
    source = Source(4 * PAGE)
    pages = Pages(source, 4 * PAGE, origin=PAGE + 3)
    pages.read(PAGE, PAGE + 1)
    pages.read(PAGE + 3, PAGE + 4)
    assert source.asked == [(PAGE, PAGE + 3), (PAGE + 3, 2 * PAGE + 3)]


def test_a_long_read_asks_for_its_bytes_alone() -> None:
    source = Source(20 * PAGE)
    pages = Pages(source, 20 * PAGE)
    assert pages.read(5, 10 * PAGE) == source.data[5 : 10 * PAGE]
    assert source.asked == [(5, 10 * PAGE)]


def test_nothing_of_nothing() -> None:
    pages = Pages(Source(1), 0)
    assert pages.read(0, 5) == b""
    assert Pages(Source(5), 5).read(4, 2) == b""
    assert Pages(Source(5), 5).read(7, 9) == b""
