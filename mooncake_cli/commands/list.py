"""``mooncake list``: the objects that there are."""

from __future__ import annotations

from typing import Annotated

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import age, printable
from p2pstore.objects.units import format_size

EXAMPLES = {
    "list_objects": (
        "mooncake list",
        "mooncake list models/",
        "mooncake list --json | jq -r '.objects[].name'",
    )
}

COLUMNS = (
    Column("NAME", style="bold"),
    Column("SIZE", right=True),
    Column("FILES", right=True),
    Column("COMPLETE", right=True),
    Column("PARTIAL", right=True),
    Column("CREATED"),
    Column("BY"),
    Column("HERE"),
)

OLDER = Column("OLDER", right=True)


def list_objects(
    ctx: typer.Context,
    prefix: Annotated[str, typer.Argument(metavar="[PREFIX]", help="Only names that begin so.")] = "",
) -> None:
    """List the objects that there are.

    COMPLETE and PARTIAL count the live nodes that hold all or a part; HERE is where this node's copy lies. OLDER, where
    it is, counts the versions of before that somebody still holds; 'mooncake history NAME' shows them.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    objects = list(invocation.client().all_objects(prefix))
    human = ""
    if output.mode == "human":
        if objects:
            older = any(item.get("superseded") for item in objects)
            rows = [
                (
                    printable(item["name"]),
                    format_size(item["size"]),
                    str(item["files"]),
                    str(item["complete"]),
                    str(item["partial"]),
                    *([str(item["superseded"] or "")] if older else []),
                    age(item["created"]),
                    printable(item["creator"]),
                    ", ".join(map(printable, item.get("here", []))),
                )
                for item in objects
            ]
            human = output.table((*COLUMNS[:5], *([OLDER] if older else []), *COLUMNS[5:]), rows)
        else:
            where = f"no object's name begins with '{printable(prefix)}'" if prefix else "no objects yet"
            output.message(f"{where}; publish one with 'mooncake register PATH'")
    output.data({"objects": objects}, human=human, quiet=(printable(item["name"]) for item in objects))
