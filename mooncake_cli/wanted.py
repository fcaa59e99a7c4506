"""Several objects in one command: names as they are, what begins with ``models/``, and patterns of names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from mooncake_cli.output import Output
from mooncake_cli.text import counted, printable
from p2pstore.errors import MooncakeError, ObjectNotFound, PartialResult
from p2pstore.objects.selection import glob

SHOWN_FAILURES = 10
"""Of those that failed, so many are shown to people; ``--json`` has all."""

_SPECIAL = re.compile(r"[*?\[]")


class Lists(Protocol):
    """Who knows what there is."""

    def all_objects(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Every object whose name begins with ``prefix``."""


def is_pattern(text: str) -> bool:
    """Whether it may mean several objects: a prefix that ends in ``/``, or a pattern of names as in a .gitignore."""
    return text.endswith("/") or _SPECIAL.search(text) is not None


def meant(client: Lists, texts: Sequence[str]) -> list[str]:
    """The names that are meant, each once, in the order in which they were asked for.

    Where no name begins with ``models/``, ``models`` is meant.
    Raises ``ObjectNotFound`` for a pattern that no name fits, ``UsageError`` for one that is none.
    """
    names: dict[str, None] = {}
    for text in texts:
        if not is_pattern(text):
            names[text] = None
            continue
        found = list(_fitting(client, text))
        if not found and not _SPECIAL.search(text):
            found = [text.rstrip("/")]
        if not found:
            raise ObjectNotFound(name=text)
        names.update(dict.fromkeys(found))
    return list(names)


def _fitting(client: Lists, text: str) -> Iterator[str]:
    special = _SPECIAL.search(text)
    fits = glob(text + "**" if text.endswith("/") else text) if special else None
    for found in client.all_objects(text[: special.start()] if special else text):
        if fits is None or fits.fullmatch(found["name"]):
            yield found["name"]


class Outcomes:
    """What became of several objects."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self.failed: list[tuple[str, MooncakeError]] = []

    def fails(self, name: str, error: MooncakeError) -> None:
        """One could not be done."""
        self.failed.append((name, error))

    def document(self, output: Output) -> Mapping[str, Any]:
        """For ``--json``."""
        failed = [{"name": name, "error": output.wire(error)} for name, error in self.failed]
        return {"objects": self.done, "failed": failed}

    def end(self, output: Output, quiet: Iterable[str], human: str = "") -> None:
        """Say it. Raises the fault where all failed, or ``PartialResult`` where some did."""
        output.data(self.document(output), human=human, quiet=quiet)
        errors = [error for _, error in self.failed]
        if errors and not self.done and len(errors) == 1:
            raise errors[0]
        total = counted(len(self.done) + len(errors), "object")
        end_partly(output, self.failed, done=bool(self.done), detail=f"{len(errors)} of {total} could not be done")


def end_partly(output: Output, failed: Sequence[tuple[str, MooncakeError]], *, done: bool, detail: str) -> None:
    """Say of each that failed why it did. Raises the first error where nothing was ``done``, else ``PartialResult``."""
    if not failed:
        return
    errors = [error for _, error in failed]
    partial = PartialResult.of(errors, detail)
    for name, error in failed[:SHOWN_FAILURES]:
        advice = f" ({error.hint})" if error.hint and partial.fields["todo"] == PartialResult.EACH else ""
        output.message(printable(f"{name}: {error}{advice}"))
    if len(failed) > SHOWN_FAILURES:
        output.message(f"and {len(failed) - SHOWN_FAILURES:,} more; --json has all")
    raise partial if done else errors[0]
