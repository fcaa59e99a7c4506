"""What a prefill and a step of decode cost, fitted to what was observed: least squares, the past fading."""

from __future__ import annotations

import itertools

from p2pstore.serving.costs import DecodeCost, PrefillCost

FADE = 0.998
"""What a prefill counts beside the next one: some 500 of them decide."""

SOLVE_EVERY = 16
"""Prefills after which the figures are computed anew."""

PRIOR_WEIGHT = 1.0
"""How many prefills the figures that it began with count for; they fade like the others."""

LEAST_SECONDS = 0.001
"""A prefill that is said to have taken less is taken for one of this."""

_TOKENS = 1e4
"""Unit of n - p, and its square that of n² - p²: the sums stay of one order of magnitude."""

_NOTHING = 1e-9
"""What is left of a sum when others say all that it says."""

_PRIOR = ((1000, 0), (10_000, 0), (40_000, 0), (20_000, 10_000))
"""Lengths and reused tokens for which the first figures are taken as observed."""


class PrefillFit:
    """Seconds of a prefill, by n - p and n² - p²; begins with a guess. Errors count in proportion, not in seconds."""

    def __init__(self, guess: PrefillCost) -> None:
        self._begin(guess)

    def _begin(self, guess: PrefillCost) -> None:
        self.cost = guess
        self._sums = [0.0] * 9
        """Of the products of 1, n - p, n² - p² and the seconds, each prefill's divided by the square of its seconds."""
        self._since = 0
        for length, reused in _PRIOR:
            self._add(length, reused, guess.seconds(length, reused), PRIOR_WEIGHT / len(_PRIOR), fade=1.0)

    def observe(self, length: int, reused: int, seconds: float) -> None:
        """A prefill took so long."""
        self._add(length, reused, seconds, 1.0, FADE)
        self._since += 1
        if self._since >= SOLVE_EVERY:
            self._since = 0
            self.cost = self._solved()

    def halve(self) -> None:
        """Begin anew, and guess that it takes half as long."""
        self._begin(PrefillCost(*(value / 2 for value in self.cost)))

    def _add(self, length: int, reused: int, seconds: float, weight: float, fade: float) -> None:
        seconds = max(seconds, LEAST_SECONDS)
        line = (length - reused) / _TOKENS
        square = line * (length + reused) / _TOKENS
        weight /= seconds * seconds
        one, x, y, xx, xy, yy, s, xs, ys = self._sums
        self._sums = [
            one * fade + weight,
            x * fade + weight * line,
            y * fade + weight * square,
            xx * fade + weight * line * line,
            xy * fade + weight * line * square,
            yy * fade + weight * square * square,
            s * fade + weight * seconds,
            xs * fade + weight * line * seconds,
            ys * fade + weight * square * seconds,
        ]

    def _solved(self) -> PrefillCost:
        """The best figures of which none is below 0: a prefill that gets cheaper as it gets longer is noise."""
        one, x, y, xx, xy, yy, s, xs, ys = self._sums
        left, right = ((one, x, y), (x, xx, xy), (y, xy, yy)), (s, xs, ys)
        best, least = None, 0.0
        for chosen in _CHOICES:
            found = _solve([[left[row][column] for column in chosen] + [right[row]] for row in chosen])
            if found is None or min(found) < 0:
                continue
            error = -sum(value * right[row] for value, row in zip(found, chosen, strict=True))  # but for a constant
            if error < least:
                best, least = dict(zip(chosen, found, strict=True)), error
        if best is None:
            return self.cost
        return PrefillCost(best.get(0, 0.0), best.get(1, 0.0) / _TOKENS, best.get(2, 0.0) / _TOKENS**2)


class DecodeFit:
    """Seconds of a decode step, by the tokens of context in the batch; begins with a guess. How many fit is not fitted.

    Errors count in seconds, so that what was measured soon outweighs the guess, even if steps take many times as long.
    Where all was measured at like loads, how much more another load costs is taken from the guess.
    """

    def __init__(self, guess: DecodeCost) -> None:
        self._begin(guess)

    def _begin(self, guess: DecodeCost) -> None:
        self.cost = guess
        self._slope = guess.each * _TOKENS
        square = (guess.room * _GUESSED_TO / _TOKENS) ** 2
        self._sums = [PRIOR_WEIGHT, 0.0, PRIOR_WEIGHT * square, PRIOR_WEIGHT * guess.fixed, 0.0]
        """Of 1, the tokens, their squares, and what the guess of ``each`` leaves of the seconds, once and by tokens."""

    def observe(self, tokens: float, seconds: float) -> None:
        """A step took so long."""
        x = tokens / _TOKENS
        rest = seconds - self._slope * x
        new = (1.0, x, x * x, rest, x * rest)
        one, x, xx, s, xs = self._sums = [before * FADE + value for before, value in zip(self._sums, new, strict=True)]
        both = _solve([[one, x, s], [x, xx, xs]])
        fixed, each = both if both is not None else (s / one, 0.0)
        each += self._slope
        if each < 0:  # a step that gets quicker as the batch grows is noise
            fixed, each = (s + self._slope * x) / one, 0.0
        elif fixed < 0:
            fixed, each = 0.0, xs / xx + self._slope
        self.cost = DecodeCost(max(0.0, fixed), max(0.0, each) / _TOKENS, self.cost.room)

    def halve(self) -> None:
        """Begin anew, and guess that it takes half as long."""
        self._begin(DecodeCost(self.cost.fixed / 2, self.cost.each / 2, self.cost.room))


_GUESSED_TO = 0.1
"""The part of the room up to which the guess counts as observed."""

_CHOICES = tuple(chosen for count in (1, 2, 3) for chosen in itertools.combinations(range(3), count))


def _solve(rows: list[list[float]]) -> list[float] | None:
    """Gauss; None where the equations say too little. The matrix is symmetric and not negative: it needs no pivots."""
    count = len(rows)
    for place in range(count):
        whole = rows[place][place]
        if whole <= _NOTHING:
            return None
        for other in range(place + 1, count):
            factor = rows[other][place] / whole
            before = rows[other][other]
            rows[other] = [value - factor * above for value, above in zip(rows[other], rows[place], strict=True)]
            if rows[other][other] <= before * _NOTHING:
                return None
    found = [0.0] * count
    for place in reversed(range(count)):
        rest = sum(rows[place][other] * found[other] for other in range(place + 1, count))
        found[place] = (rows[place][count] - rest) / rows[place][place]
    return found
