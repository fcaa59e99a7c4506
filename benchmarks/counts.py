"""Counts as options of the command line: what is none is refused in a sentence."""

from __future__ import annotations

import argparse


def as_count(text: str) -> int:
    """A whole number above 0. Raises ``argparse.ArgumentTypeError``."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no count, such as 4")
    return int(text)


def as_counts(text: str) -> list[int]:
    """Several, with commas between them. Raises ``argparse.ArgumentTypeError``."""
    counts = text.split(",")
    if not all(count.isdecimal() and int(count) for count in counts):
        raise argparse.ArgumentTypeError(f"{text!r} are no counts, such as 4,8")
    return list(map(int, counts))
