"""``mooncake cache prune``: delete replicas that nobody needs here any more."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mooncake_cli.calls import follow
from mooncake_cli.commands.cache import chosen
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.text import age, counted, printable
from mooncake_cli.wanted import end_partly
from p2pstore.errors import UsageError, from_wire
from p2pstore.objects.selection import glob
from p2pstore.objects.units import format_size, parse_size
from p2pstore.settings.master_keys import parse_duration

EXAMPLES = {
    "prune": (
        "mooncake cache prune --older-than 30d --dry-run",
        "mooncake cache prune --older-than 2w --larger-than 100GB --keep 'models/*-base' --yes",
        "mooncake cache prune models/llama-3-step-100",
    )
}

COLUMNS = (
    Column("NAME", style="bold"),
    Column("SIZE", right=True),
    Column("USED"),
    Column("PLACE"),
    Column("WHY IT STAYS"),
)


SHOWN = 20
"""Copies that were deleted which people are told by name; --json has all."""


def prune(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]", help="Only of these: a name, a pattern, a prefix/, or a path.", show_default=False
        ),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Only what was not used for so long, like 30d.")
    ] = None,
    larger_than: Annotated[
        str | None, typer.Option("--larger-than", metavar="SIZE", help="Only what is as large, like 10GB.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", metavar="NAME", help="Not these: names, patterns or prefixes/.")
    ] = None,
    last_copies: Annotated[
        bool, typer.Option("--last-copies", help="Also what no other node has whole: it is then gone for good.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Delete replicas that lie on this node.

    Only files that gets of this agent wrote, and that nobody has touched since: nothing that was registered, nothing
    that is pinned, and not what no other node has whole, unless --last-copies. The rest of a directory stays. What
    would be deleted is shown first; without a terminal to ask on it takes --yes.
    """
    if dry_run and yes:
        raise UsageError(detail="--dry-run and --yes exclude each other")
    for pattern in keep or ():
        glob(pattern)
    how: dict[str, Any] = {
        "older_than": 0.0 if older_than is None else _read("--older-than", parse_duration, older_than),
        "larger_than": 0 if larger_than is None else _read("--larger-than", parse_size, larger_than),
        "keep": keep or [],
        "last_copies": last_copies,
    }
    invocation: Invocation = ctx.obj
    output = invocation.output
    client = invocation.client()
    only = None
    if names:
        only = [_key(copy) for copy in chosen(client.cache()["copies"], names)]
    plan = follow(output, client.prune(**how, only=only, dry_run=True), "looking", "copies")
    if dry_run or not plan["deleted"]:
        _show(output, plan)
        output.message(_summary(plan))
        return
    if not yes:
        _ask(output, plan)
    wanted = [_key(copy) for copy in plan["deleted"]]
    done = follow(output, client.prune(**how, only=wanted), "deleting", "copies")
    lines = [f"deleted {printable(copy['name'])} at {printable(copy['place'])}" for copy in done["deleted"][:SHOWN]]
    more = len(done["deleted"]) - len(lines)
    lines += [f"and {more:,} more"] if more else []
    quiet = [printable(copy["place"]) for copy in done["deleted"]]
    output.done(done, human="\n".join([*lines, _summary(done)]), quiet=quiet)
    failed = [(copy["place"], from_wire(copy["error"])) for copy in done["kept"]]
    detail = f"{counted(len(failed), 'copy', 'copies')} could not be deleted"
    end_partly(output, failed, done=bool(done["deleted"]), detail=detail)


def _read(option: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(detail=f"{option}: {error}") from None


def _key(copy: Mapping[str, Any]) -> tuple[str, str, str]:
    return copy["name"], copy["place"], copy["manifest"]


def _ask(output: Output, plan: Mapping[str, Any]) -> None:
    """Have somebody say that it may go. Raises ``UsageError`` where nobody can, ``Abort`` where they say no."""
    if output.mode != "human" or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(detail="nobody can be asked here whether to delete: give --yes, or --dry-run to see what goes")
    output.message(_table(output, plan["deleted"], []).rstrip("\n"))
    what = counted(len(plan["deleted"]), "copy", "copies")
    if not typer.confirm(f"delete {what}, {format_size(plan['bytes'])}?", err=True):
        output.message("nothing was deleted")
        raise typer.Exit(1)


def _show(output: Output, plan: Mapping[str, Any]) -> None:
    human = ""
    if output.mode == "human" and plan["deleted"] + plan["kept"]:
        human = _table(output, plan["deleted"], plan["kept"])
    output.data(plan, human=human, quiet=[printable(copy["place"]) for copy in plan["deleted"]])


def _table(output: Output, gone: Sequence[Mapping[str, Any]], kept: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (*_cells(copy), printable(from_wire(copy["error"]).fields.get("detail") or from_wire(copy["error"])))
        for copy in kept
    ]
    return output.table(COLUMNS, [*((*_cells(copy), "") for copy in gone), *rows])


def _cells(copy: Mapping[str, Any]) -> tuple[str, str, str, str]:
    moment = max(copy["used"] or 0, copy["since"] or 0)
    return printable(copy["name"]), format_size(copy["size"]), age(moment) if moment else "-", printable(copy["place"])


def _summary(answer: Mapping[str, Any]) -> str:
    gone = f"{counted(len(answer['deleted']), 'copy', 'copies')}, {format_size(answer['bytes'])}"
    if answer["dry_run"]:
        text = f"{gone} would be deleted" if answer["deleted"] else "nothing would be deleted"
    else:
        text = f"deleted {gone}"
    if answer["dry_run"] and answer["kept"]:
        text += f"; {counted(len(answer['kept']), 'more copy', 'more copies')} would stay"
    return text
