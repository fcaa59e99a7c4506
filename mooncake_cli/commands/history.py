"""``mooncake history``: the versions of an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.text import age, printable, short_digest
from p2pstore.objects.reference import ALGORITHM, parse_reference
from p2pstore.objects.units import format_size

EXAMPLES = {
    "history": (
        "mooncake history models/llama-3",
        "mooncake history models/llama-3 --json | jq -r '.versions[] | select(.superseded) | .manifest'",
    )
}

COLUMNS = (
    Column("DIGEST", style="bold"),
    Column("CREATED"),
    Column("BY"),
    Column("SIZE", right=True),
    Column("TAGS"),
    Column("STATE"),
    Column("HELD BY"),
)

SHOWN_HOLDERS = 4
"""Nodes that are named for each version without ``--verbose``."""


def history(
    ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="Name of an object.")]
) -> None:
    """Show the versions of an object, and who holds each.

    The first is what the name stands for. An earlier one that somebody still holds is superseded: it is got as
    NAME@DIGEST or NAME:TAG. A node that holds a part of one only has a '~' before its name.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    parse_reference(name)
    answer = invocation.client().history(name)
    found = answer["versions"]
    human = output.table(COLUMNS, [_row(output, each) for each in found]) if output.mode == "human" else ""
    quiet = (f"{printable(answer['name'])}@{ALGORITHM}:{printable(each['manifest'])}" for each in found)
    output.data(answer, human=human, quiet=quiet)


def _row(output: Output, version: Mapping[str, Any]) -> tuple[str, ...]:
    holders = [("" if h["state"] == "complete" else "~") + printable(h["node"]) for h in version["holders"]]
    shown = holders if output.verbose else holders[:SHOWN_HOLDERS]
    left = len(holders) - len(shown)
    return (
        short_digest(version["manifest"]),
        age(version["created"]),
        printable(version["creator"]),
        format_size(version["size"]),
        ", ".join(map(printable, version["tags"])),
        "newest" if version["current"] else "superseded" if version["superseded"] else "",
        ", ".join(shown) + (f" and {left} more" if left else "") or "nobody now",
    )
