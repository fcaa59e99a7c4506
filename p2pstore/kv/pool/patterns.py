"""Regular expressions that strangers send, and that must not keep the master busy for ever.

``re`` tries every way to match, and cannot be stopped. With a repeat inside a repeat, or many repeats in a row, that
takes for ever on a key that nearly fits. Patterns that could are refused. What is left is what people use to pick keys:
prefixes, ``.*``, classes. How long a key such a pattern may be tried on follows from how many ways there are at most.
"""

from __future__ import annotations

import math
import re

MAX_PATTERN = 1024
"""Characters."""

MAX_REPEATS = 3
"""Unbounded repeats, each of which multiplies the time by the length of the key."""

MAX_OPTIONAL = 8
"""Optional parts, each of which doubles it."""

MAX_WAYS = 1024
"""Ways through all groups of alternatives: each group multiplies them by the number of its own."""

MAX_TRIES = 10_000_000
"""Ways in which one key is tried at most, each of some 2 ns."""

_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}|[()*+?|]|.", re.DOTALL)


class Pattern:
    """One that is ready to use, on keys of up to ``longest`` characters."""

    __slots__ = ("longest", "search")

    def __init__(self, compiled: re.Pattern[str], longest: int) -> None:
        self.search = compiled.search
        self.longest = longest


def bounded(pattern: str) -> Pattern | None:
    """The pattern, ready to use; None if it is none, or could take too long on any key."""
    if len(pattern) > MAX_PATTERN:
        return None
    if pattern.endswith(".*") and not pattern.endswith("\\.*"):
        pattern = pattern[:-2]  # it is looked for anywhere in a key, so what follows, or goes before, may be anything
    if re.match(r"\.\*[^*+?{]", pattern):
        pattern = pattern[2:]
    longest = _longest(pattern)
    if not longest:
        return None
    try:
        return Pattern(re.compile(pattern), longest)
    except (re.error, OverflowError, RecursionError):
        return None


def _longest(pattern: str) -> int:
    """Characters of the longest key that it can be tried on.

    0 where repeats or alternatives are many, or something is repeated that can be matched in several ways itself.
    """
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
                return 0
            repeats += 1
            several[-1] = True
        elif part[0] == "\\" and part[1:].isdigit():
            return 0  # a reference back: matching those is slow by nature
        closed = False
        previous = "}" if repeated and part[0] == "{" else part
    if repeats > MAX_REPEATS or optional > MAX_OPTIONAL or ways > MAX_WAYS:
        return 0
    # Each repeat may end at any character behind the one before, and all of it may begin at any unless it is anchored.
    # So n characters are tried in n ** depth / depth! ways.
    depth = max(1, repeats + (not pattern.startswith("^") or ways > 1))
    return int((MAX_TRIES * math.factorial(depth) / (ways << optional)) ** (1 / depth))
