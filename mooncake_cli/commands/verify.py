"""``mooncake verify``: hash again what this node holds."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from mooncake_cli.calls import follow
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import counted, printable
from p2pstore.errors import IntegrityError, UsageError
from p2pstore.objects.units import format_seconds, format_size

EXAMPLES = {"verify": ("mooncake verify models/llama-3", "mooncake verify /data/llama-3")}

BAD = (
    Column("FILE"),
    Column("CHUNK", right=True),
    Column("OFFSET", right=True),
    Column("LENGTH", right=True),
    Column("REASON"),
)


def verify(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="An object's name, or the path where it lies here.")
    ],
) -> None:
    """Hash again what this node holds.

    Reads every byte and compares it with the manifest. Ends with status 4 when something differs. What begins with
    '/' or '.' is a path.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    result = follow(output, invocation.client().verify(target_of(target)), "verifying")
    if result["ok"]:
        human = (
            f"{printable(result['path'])} is {printable(result['name'])}, every byte: {format_size(result['size'])}, "
            f"{counted(result['chunks'], 'chunk')}, in {format_seconds(result['seconds'])}"
        )
        if other := result.get("replaced_by"):
            human += (
                f"\nthe name now stands for other content, which {printable(other)} registered: who gets it, gets that"
            )
        output.done(result, human=human)
        return
    bad: list[dict[str, Any]] = result["bad"]
    rows = [
        (
            printable(b["file"]),
            "-" if b["chunk"] is None else str(b["chunk"]),  # what no chunk tells: a file that is too long, say
            str(b["offset"]),
            str(b["length"]),
            printable(b["reason"]),
        )
        for b in bad
    ]
    output.data(result, human=output.table(BAD, rows) if output.mode == "human" else "", quiet=_names(bad))
    chunks = sum(b["chunk"] is not None for b in bad)
    detail = f"{counted(chunks, 'bad chunk')} of {result['chunks']:,}" if chunks else printable(bad[0]["reason"])
    raise IntegrityError(path=result["path"], name=result["name"], detail=detail)


def target_of(text: str) -> str:
    """What the agent is asked for: a name as it is, a path made absolute. Raises ``UsageError`` for an empty one."""
    if not text:
        raise UsageError(detail="NAME or PATH is empty; '.' is the current directory")
    is_path = text.startswith(("/", ".", "~"))
    return os.path.abspath(os.path.expanduser(text)) if is_path else text


def _names(bad: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(printable(item["file"]) for item in bad))
