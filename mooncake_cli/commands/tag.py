"""``mooncake tag``: names for versions of an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.tags import moved
from mooncake_cli.text import age, printable, short_digest
from p2pstore.errors import UsageError
from p2pstore.objects.reference import Reference, check_tag, parse_reference
from p2pstore.objects.units import format_size

EXAMPLES = {
    "tag": (
        "mooncake tag models/llama-3                          # its tags",
        "mooncake tag models/llama-3 step-1000                # of what the name stands for now",
        "mooncake tag models/llama-3:step-1000 stable         # another for the same; moves 'stable'",
        "mooncake tag models/llama-3@sha256:3f786850e387 good",
        "mooncake tag models/llama-3:stable --remove",
    )
}

COLUMNS = (
    Column("TAG", style="bold"),
    Column("DIGEST"),
    Column("SIZE", right=True),
    Column("COMPLETE", right=True),
    Column("PARTIAL", right=True),
    Column("TAGGED"),
    Column("BY"),
    Column(""),
)


def tag(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An object, or a version of it: NAME:TAG, or NAME@DIGEST.")
    ],
    new: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NEW]...", help="Tags that are to lead to it, wherever they led before."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the tag NAME:TAG; what it led to stays.")] = False,
) -> None:
    """Give versions of an object names of their own, or list these.

    A tag leads to one manifest digest, and moves at once and for everybody; every command that takes NAME takes
    NAME:TAG. It stays when nobody holds its version any more, and the list says so.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    wanted = parse_reference(name)
    tags = [_new_tag(wanted, text) for text in new or []]
    if remove:
        if tags or wanted.digest or not wanted.tag:
            raise UsageError(detail="--remove takes one tag, NAME:TAG")
        result = invocation.client().untag(name)
        tagged = printable(f"{result['name']}:{result['tag']}")
        output.done(result, human=f"removed {tagged}, which was {short_digest(result['manifest'])}", quiet=[tagged])
    elif tags:
        result = invocation.client().tag(name, tags)
        human = "\n".join(moved(result["name"], result["manifest"], result["tags"]))
        output.done(result, human=human, quiet=[f"{result['name']}:{each['tag']}" for each in result["tags"]])
    else:
        answer = invocation.client().tags(name)
        found = answer["tags"]
        if not found and output.mode == "human":
            output.message(f"{printable(name)} has no tags; 'mooncake tag {printable(name)} NEW' makes one")
        human = _table(output, found) if found and output.mode == "human" else ""
        output.data(answer, human=human, quiet=(printable(f"{each['name']}:{each['tag']}") for each in found))


def _new_tag(wanted: Reference, text: str) -> str:
    """The tag that is meant by ``TAG``, or ``NAME:TAG`` of the same name. Raises ``BadTag`` and ``UsageError``."""
    name, colon, last = text.partition(":")
    if colon and name != wanted.name:
        raise UsageError(detail=f"{printable(text)} is a tag of another object than {printable(wanted.name)}")
    return check_tag(last if colon else text)


def _table(output: Output, found: list[Mapping[str, Any]]) -> str:
    rows = [
        (
            printable(each["tag"]),
            short_digest(each["manifest"]),
            format_size(each["size"]),
            str(each["complete"]),
            str(each["partial"]),
            age(each["moved"]),
            printable(each["by"]),
            "" if each["complete"] + each["partial"] else "nobody holds it now",
        )
        for each in found
    ]
    return output.table(COLUMNS, rows)
