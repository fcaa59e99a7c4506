"""Regular expressions that strangers send, and that must not keep the master busy for ever.

``re`` tries every way to match: with a repeat inside a repeat, or many repeats in a row, that takes for ever on a key
that nearly fits. Patterns that could are refused. What is left is what people use to pick
keys: prefixes, ``.*``, classes.
"""

from __future__ import annotations

import re

MAX_PATTERN = 1024
"""Characters."""

MAX_REPEATS = 3
"""Unbounded repeats, each of which multiplies the time by the length of the key."""

MAX_OPTIONAL = 8
"""Optional parts, each of which doubles it."""

MAX_WAYS = 1024
"""Ways through all groups of alternatives: each group multiplies them by the number of its own."""

_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}|[()*+?|]|.", re.DOTALL)


def bounded(pattern: str) -> re.Pattern[str] | None:
    """The pattern, ready to use; None if it is none, or could take too long."""
    if len(pattern) > MAX_PATTERN or not _harmless(pattern):
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _harmless(pattern: str) -> bool:
    """Whether repeats and alternatives are few, and nothing is repeated that can be matched in several ways itself."""
    repeats = optional = 0
    ways = 1
    several = [False]  # for each open group whether there are several ways to match what it holds
    alternatives = [1]  # of each open group
    closed = False  # the same of a group that has just ended
    previous = ""
    for part in _PARTS.findall(pattern):
        repeated = part in {"*", "+"} or (part[0] == "{" and len(part) > 2)
        if part == "(":
            several.append(False)
            alternatives.append(1)
        elif part == ")" and len(several) > 1:
            closed = several.pop()
            ways *= alternatives.pop()
            several[-1] = several[-1] or closed
            previous = part
            continue
        elif part == "|":
            several[-1] = True
            alternatives[-1] += 1
        elif part == "?" and previous not in {"(", "*", "+", "?", "}"}:
            optional += 1
            several[-1] = True
        elif repeated and previous not in {"*", "+", "?", "}"}:
            if closed:
                return False
            repeats += 1
            several[-1] = True
        elif part[0] == "\\" and part[1:].isdigit():
            return False  # a reference back: matching those is slow by nature
        closed = False
        previous = "}" if repeated and part[0] == "{" else part
    return repeats <= MAX_REPEATS and optional <= MAX_OPTIONAL and ways <= MAX_WAYS
