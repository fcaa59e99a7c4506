"""Counts and amounts as options of the command line: what is none is refused in a sentence."""

from __future__ import annotations

import argparse
import math


def as_count(text: str) -> int:
    """A whole number above 0. Raises ``argparse.ArgumentTypeError``."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no count, such as 4")
    return int(text)


def as_count_or_none(text: str) -> int:
    """A whole number, perhaps 0. Raises ``argparse.ArgumentTypeError``."""
    return 0 if text == "0" else as_count(text)


def as_counts(text: str) -> list[int]:
    """Several, with commas between them. Raises ``argparse.ArgumentTypeError``."""
    counts = text.split(",")
    if not all(count.isdecimal() and int(count) for count in counts):
        raise argparse.ArgumentTypeError(f"{text!r} are no counts, such as 4,8")
    return list(map(int, counts))


def as_amount(text: str) -> float:
    """A finite number above 0. Raises ``argparse.ArgumentTypeError``."""
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    if not 0 < amount < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount, such as 0.5")
    return amount
