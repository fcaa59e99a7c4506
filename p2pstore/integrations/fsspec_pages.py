"""A cache for one open file: pages that lie each in one chunk of the object, so that no chunk comes that nobody reads.

Pure but for its fetcher.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

PAGE_BYTES = 1 << 20
"""Of a page; no chunk is smaller, and each but the last of a file consists of whole pages."""

MAX_PAGES = 32
"""That are kept."""

Fetcher = Callable[[int, int], bytes]


class Pages:
    """What was read of a file last. ``fetch(begin, end)`` brings bytes of it."""

    def __init__(self, fetch: Fetcher, size: int, origin: int = 0) -> None:
        """``origin`` is where its chunks begin to be counted; see ``p2pstore.objects.cutting``."""
        self._fetch = fetch
        self._size = size
        self._origin = origin
        self._pages: OrderedDict[int, bytes] = OrderedDict()  # by where they begin

    def read(self, begin: int, end: int) -> bytes:
        """The bytes of a range, which is cut at the file's end. What is missing of it comes in as few calls as it can.

        Of a range that no cache could hold, nothing is kept but its last page.
        """
        begin, end = max(0, begin), min(end, self._size)
        if begin >= end:
            return b""
        starts = list(self._starts(begin, end))
        if len(starts) > MAX_PAGES:
            return self._long(begin, end, starts[-1])
        parts: list[bytes] = []
        missing: list[int] = []
        for start in starts:
            if start in self._pages:
                parts += self._bring(missing)
                missing = []
                self._pages.move_to_end(start)
                parts.append(self._pages[start])
            else:
                missing.append(start)
        parts += self._bring(missing)
        while len(self._pages) > MAX_PAGES:
            self._pages.popitem(last=False)
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        return whole[begin - starts[0] : end - starts[0]]

    def _long(self, begin: int, end: int, last: int) -> bytes:
        data = self._fetch(begin, self._end(last))
        self._pages[last] = data[last - begin :]
        while len(self._pages) > MAX_PAGES:
            self._pages.popitem(last=False)
        return data[: end - begin]

    def _bring(self, starts: list[int]) -> list[bytes]:
        """Pages that follow one another, in one call."""
        if not starts:
            return []
        data = self._fetch(starts[0], self._end(starts[-1]))
        pages = [data[start - starts[0] : self._end(start) - starts[0]] for start in starts]
        self._pages.update(zip(starts, pages, strict=True))
        return pages

    def _starts(self, begin: int, end: int) -> Iterator[int]:
        """Where the pages of a range begin."""
        at = self._start(begin)
        while at < end:
            yield at
            at = self._end(at)

    def _start(self, offset: int) -> int:
        base = self._origin if offset >= self._origin else 0
        return base + (offset - base) // PAGE_BYTES * PAGE_BYTES

    def _end(self, start: int) -> int:
        end = start + PAGE_BYTES
        return min(end, self._origin if start < self._origin else self._size, self._size)
