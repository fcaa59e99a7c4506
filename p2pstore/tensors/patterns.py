"""Patterns of tensors' names, as of a shell: ``*`` stands for anything, dots included, ``?`` for one character."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence

from p2pstore.errors import UsageError

MAX_PATTERNS = 256
"""Of one call."""

MAX_PATTERN_BYTES = 1024
"""One pattern."""


class NamePatterns:
    """Which names are wanted: those that fit a pattern, or all where there is none. Raises ``UsageError``.

    Or those that pass a ``test``, which is then all that is asked.
    """

    def __init__(self, patterns: Sequence[str] = (), test: Callable[[str], bool] | None = None) -> None:
        if len(patterns) > MAX_PATTERNS:
            raise UsageError(detail=f"there are {len(patterns)} patterns of tensors; {MAX_PATTERNS} are allowed")
        for pattern in patterns:
            if not pattern or len(pattern.encode("utf-8", "surrogatepass")) > MAX_PATTERN_BYTES:
                raise UsageError(detail=f"a pattern of tensors is empty, or longer than {MAX_PATTERN_BYTES} bytes")
        self.patterns = tuple(patterns)
        self._test = test
        self._each = [re.compile(fnmatch.translate(pattern)) for pattern in patterns]

    def takes(self, name: str) -> bool:
        """Whether a tensor of that name is wanted."""
        if self._test is not None:
            return self._test(name)
        return not self._each or any(each.match(name) for each in self._each)

    def idle(self, names: Iterable[str]) -> list[str]:
        """The patterns that none of these names fits: most likely slips."""
        left = dict(zip(self.patterns, self._each, strict=True))
        for name in names:
            for pattern in [pattern for pattern, each in left.items() if each.match(name)]:
                del left[pattern]
            if not left:
                break
        return list(left)
