"""The body of a function of plain Python that reads or writes messages of one type, as it grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.rpc.codes import Code

WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""How wide all lengths of one message may be, bytes, and ``struct``'s code for it."""

INDENT = "    "
_ONE_BYTE = [bytes((number,)) for number in range(256)]


class Lines:
    """Its lines; what is of fixed size waits until something else must be read or written."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.code = WIDTHS[width]
        self.names: dict[str, Any] = {"Code": Code, "code_of": Code.of, "new": tuple.__new__, "ONE": _ONE_BYTE}
        self._lines: list[str] = []
        self._depth = 1
        self._count = 0
        self._pending: list[tuple[str, str]] = []

    def add(self, *lines: str) -> None:
        """Put lines in at the present depth."""
        self._lines += [INDENT * self._depth + line for line in lines]

    def text(self, name: str, quick: str, other: str) -> None:
        """A name for text or its bytes; the error handler, which few need, makes it take twice the time."""
        self.add("try:", f"{INDENT}{name} = {quick}", "except UnicodeError:", f"{INDENT}{name} = {other}")

    def open(self, line: str) -> None:
        """Begin a block."""
        self.add(line)
        self._depth += 1

    def close(self) -> None:
        """End it."""
        self._depth -= 1

    def name(self, value: Any = None, stem: str = "v") -> str:
        """A new name, of ``value`` unless that is None."""
        self._count += 1
        name = f"{stem}{self._count}"
        if value is not None:
            self.names[name] = value
        return name

    def wait(self, code: str, what: str) -> None:
        """Have a field of fixed size wait: its ``struct`` code, and the expression of its value or the name for it."""
        self._pending.append((code, what))

    def waiting(self) -> list[tuple[str, str]]:
        """What waits, taken away: for branches, each of which is to begin with it."""
        taken, self._pending = self._pending, []
        return taken

    def wait_again(self, what: list[tuple[str, str]]) -> None:
        """Have that wait first."""
        self._pending = [*what]

    def taken(self) -> tuple[str, list[str]]:
        """What waits, taken away: all codes, and all expressions."""
        waited = self.waiting()
        return "".join(code for code, _ in waited), [what for _, what in waited]

    def function(self, head: str) -> Callable[..., Any]:
        """Make the function ``made``."""
        source = "\n".join((head, *self._lines))
        exec(source, self.names)  # noqa: S102 - made of the types alone, never of what came from outside
        made: Callable[..., Any] = self.names["made"]
        return made
