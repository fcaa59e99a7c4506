"""The page of docs that says what ``--json`` prints."""

from __future__ import annotations

import re

from scripts.json_keys.documents import DOCUMENTS, WITHOUT, Document
from scripts.json_keys.form import Key, Shape, paths
from scripts.json_keys.objects import ERROR

TEXT = """\
# What --json prints

With `--json` a command that asks or acts prints one document on standard output, in one line; one that goes on until
it is ended prints a line for each. Messages for people stay on standard error. A later version may add keys: pass over
what you do not know.

A command that fails prints `{"error": ...}` on standard error, its last line there, and ends with the status that
[errors.md](errors.md) gives. Of several objects some of which failed it prints the document, too. `get NAME -`, whose
standard output is the object, prints its document on standard error.

`[text]` is a list of texts, `files[].path` a key of each element of `files`, and `*` stands for any name. `?` after a
type: it may be null; after a key: it may be missing. `time` is in seconds since 1970-01-01 UTC, `bytes/s` in bytes and
`GB/s` in 10^9 bytes a second, and `µs` in microseconds.
"""


def page() -> str:
    """All of it, in Markdown."""
    lines = [*TEXT.splitlines(), ""]
    for document in DOCUMENTS:
        lines += _section(_heading(document), document.shape)
    for shape in _others():
        lines += _section(shape.title, shape)
    lines += ["## Commands that print none", ""]
    lines += [f"- `mooncake {command}`: {why}." for command, why in WITHOUT.items()]
    return "\n".join([*lines, ""])


def _heading(document: Document) -> str:
    commands = ", ".join(f"mooncake {command}" for command in document.commands)
    return f"{commands}: {document.when}" if document.when else commands


def _section(heading: str, shape: Shape) -> list[str]:
    lines = [f"## {heading}", "", "| key | type | meaning |", "|---|---|---|"]
    for path, key in paths(shape):
        lines.append(f"| `{path}{'?' if key.optional else ''}` | {_type(key)} | {_meaning(key)} |")
    return [*lines, ""]


def _type(key: Key) -> str:
    kind = f"[{key.type}]" if key.listed else key.type
    return f"`{kind}?`" if key.null else f"`{kind}`"


def _meaning(key: Key) -> str:
    if key.inner is None or not key.inner.title:
        return key.meaning
    return f"{key.meaning}: [{key.inner.title[0].lower()}{key.inner.title[1:]}](#{_anchor(_place(key.inner))})"


def _place(shape: Shape) -> str:
    """The heading of the section that describes a shape with a title."""
    for document in DOCUMENTS:
        if document.shape is shape:
            return _heading(document)
    return shape.title


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def _others() -> list[Shape]:
    """Shapes with titles that no command prints alone, the error first."""
    found = [ERROR]

    def look(shape: Shape) -> None:
        for _, key in paths(shape):
            if key.inner is not None and key.inner.title and all(each is not key.inner for each in found):
                if all(document.shape is not key.inner for document in DOCUMENTS):
                    found.append(key.inner)
                look(key.inner)

    for document in DOCUMENTS:
        look(document.shape)
    return found
