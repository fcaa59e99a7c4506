"""Which of the files below a path belong to an object: patterns of the user's, and what nobody means to publish.

A pattern is one of a ``.gitignore``: ``*`` and ``?`` stand for anything but ``/``, ``**`` for anything, ``[a-z]`` for
one character. Without a ``/`` before its end it fits a name at any depth, else a path from the top; with a ``/`` at its
end it fits directories alone. What fits a directory fits all that is below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from p2pstore.errors import UsageError

MAX_PATTERNS = 256
"""Patterns of one register."""

MAX_PATTERN_BYTES = 1024
"""One pattern."""

LEFT_OUT = ("lost+found/", ".git", "**/.cache/huggingface/", ".*.mooncake-*.part/")
"""What is left out by default: what a file system keeps for itself, git's history, the notes of 'hf download', and the
directories in which gets work (``p2pstore.pull.workplace``)."""


@dataclass(frozen=True)
class Selection:
    """What a register takes of a directory. Raises ``UsageError`` for a pattern that is none."""

    include: Sequence[str] = ()
    """Where there are any, only files that fit one are taken."""
    exclude: Sequence[str] = ()
    """What fits one of these is not."""
    everything: bool = False
    """Whether to take what is left out by default, too."""
    _include: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _exclude: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_include", _compiled(self.include))
        object.__setattr__(self, "_exclude", _compiled(self.exclude))

    def takes(self, path: str, *, directory: bool) -> bool:
        """Whether a file belongs to the object; whether any file of a directory may."""
        if self.excludes(path, directory=directory):
            return False
        return directory or self._include is None or self._include.match(path) is not None

    def excludes(self, path: str, *, directory: bool) -> bool:
        """Whether one of the user's patterns leaves it out."""
        return self._exclude is not None and self._exclude.match(path + "/" if directory else path) is not None

    @cached_property
    def keeps_empty(self) -> bool:
        """Whether directories without a file belong to the object: not where files are asked for by name."""
        return not self.include

    def leaves_out(self, path: str, *, directory: bool) -> bool:
        """Whether it is of the kind that nobody means to publish."""
        return not self.everything and _DEFAULT.match(path + "/" if directory else path) is not None


def selection_of(paths: Iterable[str]) -> Selection:
    """What takes these files: as by default, or everything where one of them is left out by default."""
    return Selection(everything=any(map(_DEFAULT.match, paths)))


def literal(path: str) -> str:
    """A pattern that fits this path from the top, and nothing else."""
    return "/" + re.sub(r"([*?\[\]\\])", r"\\\1", path)


def _compiled(patterns: Sequence[str]) -> re.Pattern[str] | None:
    """One expression for all; None for no pattern."""
    if not patterns:
        return None
    if len(patterns) > MAX_PATTERNS:
        raise UsageError(detail=f"there are {len(patterns)} patterns; {MAX_PATTERNS} are allowed")
    return re.compile("|".join(map(_expression, patterns)), re.DOTALL)


def _expression(pattern: str) -> str:
    """A pattern as a regular expression for paths from the top, where a directory's ends with ``/``."""
    if len(pattern.encode("utf-8", "surrogatepass")) > MAX_PATTERN_BYTES:
        raise UsageError(detail=f"a pattern is longer than {MAX_PATTERN_BYTES} bytes")
    bare = pattern.removeprefix("./").rstrip("/")
    if not bare or pattern.startswith("!"):
        reason = "it fits nothing" if not bare else "'!' is not known; '--include' names what to take"
        raise UsageError(detail=f"bad pattern {pattern!r}: {reason}")
    anchored = "/" in bare or pattern.startswith("./")
    try:
        body = _glob(bare.removeprefix("/"))
        re.compile(body)
    except re.error:
        raise UsageError(detail=f"bad pattern {pattern!r}: its brackets make no sense") from None
    return f"{'' if anchored else '(?:.*/)?'}(?:{body})(?:/{'' if pattern.endswith('/') else '|$'})"


def glob(pattern: str) -> re.Pattern[str]:
    """A pattern for whole names, in which ``*`` stops at a ``/``, and ``**`` does not. Raises ``UsageError``."""
    if len(pattern.encode("utf-8", "surrogatepass")) > MAX_PATTERN_BYTES:
        raise UsageError(detail=f"a pattern is longer than {MAX_PATTERN_BYTES} bytes")
    try:
        return re.compile(_glob(pattern), re.DOTALL)
    except re.error:
        raise UsageError(detail=f"bad pattern {pattern!r}: its brackets make no sense") from None


_TOKEN = re.compile(r"\*\*/|/\*\*$|\*\*|\*|\?|\[(?P<not>[!^]?)(?P<set>\]?[^]/]*)\]|\\(?P<plain>.)|.", re.DOTALL)


def _glob(pattern: str) -> str:
    known = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}

    def one(found: re.Match[str]) -> str:
        text = found[0]
        if text in known:
            return known[text]
        if found["set"]:
            inside = re.sub(r"([\\\[&~|])", r"\\\1", found["set"])
            inside = "\\]" + inside[1:] if inside.startswith("]") else inside
            return f"(?!/)[{'^' if found['not'] else ''}{inside}]"
        return re.escape(found["plain"] or text)

    return _TOKEN.sub(one, pattern)


_DEFAULT = re.compile("|".join(map(_expression, LEFT_OUT)), re.DOTALL)
