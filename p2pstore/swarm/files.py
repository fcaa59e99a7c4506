"""In which file of an object each chunk lies, and of which file the next is best fetched. Pure.

A file lets one write in at a time. Who writes chunks of one file together waits at its lock, and with free cores waits
at work; chunks of several files are written at once. So what is on its way is spread over the files: of a few chunks
drawn at random, one of the file of which the fewest runs are under way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence


class Files:
    """The files of one object, by the chunks in them."""

    def __init__(self, first_chunks: Sequence[int] = ()) -> None:
        """``first_chunks[i]`` is the number of the first chunk of file i. Without any, all chunks lie in one file."""
        self._first_chunks = first_chunks

    def __bool__(self) -> bool:
        """Whether there are several."""
        return len(self._first_chunks) > 1

    def of(self, chunk: int) -> int:
        """The number of the file that a chunk lies in; one without chunks has the number of none."""
        return max(0, bisect_right(self._first_chunks, chunk) - 1)

    def quietest(self, drawn: Iterable[int], under_way: Iterable[range]) -> int | None:
        """The first of the ``drawn`` chunks of whose file the fewest runs are ``under_way``; None where none is drawn.

        A run counts for the file of its first chunk.
        """
        busy = Counter(self.of(run.start) for run in under_way)
        return min(drawn, key=lambda chunk: busy[self.of(chunk)], default=None)


NO_FILES = Files()
"""Where it does not matter which file a chunk lies in: one file, or memory."""
