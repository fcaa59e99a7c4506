"""Trees of errors, as a docstring draws them and as the classes are."""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine.errors import MooncakeError

_DRAWN = re.compile(r"(?P<lead>[│├└─ ]*)(?P<name>[A-Z]\w+) +(?P<code>\d+)   ")


def drawn(text: str) -> dict[str, tuple[str, int]]:
    """Name to parent's name and exit status, from a tree drawn in a docstring."""
    found: dict[str, tuple[str, int]] = {}
    above: list[str] = []
    for line in text.splitlines():
        match = _DRAWN.match(line)
        if match:
            depth = (len(match["lead"]) - 4) // 4
            del above[depth:]
            found[match["name"]] = (above[-1] if above else "", int(match["code"]))
            above.append(match["name"])
    return found


def in_code(classes: Iterable[type[MooncakeError]]) -> dict[str, tuple[str, int]]:
    """Name to parent's name and exit status, from the classes themselves."""
    return {cls.__name__: ("" if cls is MooncakeError else cls.__bases__[0].__name__, cls.exit_code) for cls in classes}
