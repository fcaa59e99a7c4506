"""What etcd's log says of why it ended, in a sentence that people can read."""

from __future__ import annotations

import json
import re

FATAL = ("fatal", "panic", "error")
"""Levels of lines that tell why it ended, the surest first."""
DETAILS_UNTOLD = frozenset({"level", "ts", "caller", "msg", "error", "stacktrace", "logger"})
"""Keys of such a line that are said in the sentence itself, or are for developers."""
GO_ENDS = re.compile(r"(?:fatal error|panic|runtime): .+")
"""What Go's runtime says first when it ends a program; what follows are stacks."""
MAX_CHARACTERS = 300
"""A longer line is cut."""


def why(log: str) -> str:
    """The reason in a log, as ``msg: error (key value, ...)``; the last line where there is none; empty for no log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [document for document in map(_document, lines) if document is not None]
    for level in FATAL:
        for document in reversed(told):
            if document.get("level") == level:
                return _cut(_sentence(document))
    for line in lines:
        if GO_ENDS.fullmatch(line):
            return _cut(line)
    if not lines:
        return ""
    last = _document(lines[-1])
    return _cut(lines[-1] if last is None else _sentence(last))


def _document(line: str) -> dict[str, object] | None:
    """A line of zap's, which is JSON and has a message."""
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) and isinstance(document.get("msg"), str) else None


def _sentence(document: dict[str, object]) -> str:
    words = str(document["msg"])
    if document.get("error"):
        words += f": {document['error']}"
    more = [
        f"{key} {value}"
        for key, value in document.items()
        if key not in DETAILS_UNTOLD and isinstance(value, str | int | float)
    ]
    return f"{words} ({', '.join(more)})" if more else words


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 3]}..."
