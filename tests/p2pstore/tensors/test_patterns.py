"""Patterns of tensors' names."""

from __future__ import annotations

import pytest

from p2pstore.errors import UsageError
from p2pstore.tensors.patterns import MAX_PATTERN_BYTES, MAX_PATTERNS, NamePatterns

NAMES = ["model.layers.0.mlp.up_proj.weight", "model.layers.10.mlp.up_proj.weight", "model.norm.weight", "Lm_head"]


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        ((), [0, 1, 2, 3]),
        (("*",), [0, 1, 2, 3]),
        (("model.layers.0.*",), [0]),
        (("model.layers.?.*",), [0]),
        (("model.layers.[0-9]*.up_proj.weight",), [0, 1]),
        (("*.norm.weight", "lm_head"), [2]),
        (("model.norm",), []),
        (("Lm_head\n",), []),
    ],
)
def test_what_is_wanted(patterns: tuple[str, ...], taken: list[int]) -> None:
    wanted = NamePatterns(patterns)
    assert [number for number, name in enumerate(NAMES) if wanted.takes(name)] == taken


def test_patterns_that_fit_nothing() -> None:
    assert NamePatterns(("*.norm.*", "nrom*", "x")).idle(NAMES) == ["nrom*", "x"]
    assert NamePatterns(("*", "model.*")).idle(NAMES) == []
    assert NamePatterns().idle([]) == []


@pytest.mark.parametrize("patterns", [("",), ("x" * (MAX_PATTERN_BYTES + 1),), ("x",) * (MAX_PATTERNS + 1)])
def test_what_is_no_pattern(patterns: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        NamePatterns(patterns)
