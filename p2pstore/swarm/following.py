"""Whom a getter follows of more holders than it can: a random sample of all that came, whoever came first.

Holders come one after the other, and every getter hears of them in about that order. Were the first to come followed by
all, and the last by nobody, half of thirty-two links would carry nothing: the last receiver of 256 chunks took 1.4 to
1.6 times S/B so in simulations (1.65 between real agents), and takes 1.07 there where each follows a sample. So whoever
has no place left for a newcomer gives it that of another as often as keeps the sample random (Vitter's algorithm R).
"""

from __future__ import annotations

import random


def displaces(known: int, most: int, chance: random.Random) -> bool:
    """Whether a newcomer takes the place of one of the ``most`` that are followed: ``known`` are all, with itself."""
    return chance.random() * known < most
