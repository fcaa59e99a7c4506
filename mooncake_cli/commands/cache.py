"""``mooncake cache list|du|pin|unpin``: what lies on this node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.text import age, counted, printable
from mooncake_cli.wanted import is_pattern
from p2pstore.errors import NotHeld
from p2pstore.objects.selection import glob
from p2pstore.objects.units import format_size

EXAMPLES = {
    "list_copies": (
        "mooncake cache list",
        "mooncake cache list models/ --json | jq -r '.copies[].place'",
    ),
    "du": ("mooncake cache du", "mooncake cache du 'models/*'"),
    "pin": ("mooncake cache pin models/llama-3", "mooncake cache pin /data/llama-3 'models/*-base'"),
    "unpin": ("mooncake cache unpin models/llama-3",),
}

COPIES = (
    Column("NAME", style="bold"),
    Column("ROLE"),
    Column("SIZE", right=True),
    Column("SINCE"),
    Column("USED"),
    Column("PINNED"),
    Column("PLACE"),
)

ROLES = ("gold", "kept", "replica", "part")

Which = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME...]",
        help="Only these: a name, a pattern, a prefix/, or a copy's path.",
        show_default=False,
    ),
]


def list_copies(ctx: typer.Context, names: Which = None) -> None:
    """List the copies that lie on this node.

    A gold one was registered, a kept one came as a stream, a replica was brought by a get; of a part only some files
    are here. USED is when a peer or a get of this node used it last; what other programs read is not known.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    answer = invocation.client().cache()
    copies = chosen(answer["copies"], names or ())
    human = ""
    if output.mode == "human":
        human = output.table(COPIES, [row(copy) for copy in copies]) if copies else ""
        if not copies:
            output.message("nothing lies here yet; bring something with 'mooncake get NAME PATH'")
    output.data({**answer, "copies": copies}, human=human, quiet=[printable(copy["place"]) for copy in copies])


def du(ctx: typer.Context, names: Which = None) -> None:
    """Show how much the copies take, and the quota.

    A content that lies in two places counts twice. The quota is for replicas that this node's agent wrote.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    answer = invocation.client().cache()
    copies = chosen(answer["copies"], names or ())
    roles = {
        role: {"copies": len(there), "bytes": sum(copy["size"] for copy in there)}
        for role in ROLES
        if (there := [copy for copy in copies if copy["role"] == role])
    }
    total = {"copies": len(copies), "bytes": sum(copy["size"] for copy in copies)}
    document = {"roles": roles, "total": total, "quota": answer["quota"]}
    human = _totals(output, document) if output.mode == "human" else ""
    output.data(document, human=human, quiet=[str(total["bytes"])])


def _totals(output: Output, document: Mapping[str, Any]) -> str:
    rows = [(role, _amount(amount)) for role, amount in (*document["roles"].items(), ("total", document["total"]))]
    quota = document["quota"]
    if quota is not None:
        share = 100 * quota["taken"] / quota["bytes"]
        told = f"{format_size(quota['taken'])} of {format_size(quota['bytes'])} ({share:.0f} %)"
        rows.append(("quota", f"{told}; above {100 * quota['high']:g} % it takes what was used least lately"))
    return output.fields(rows)


def _amount(amount: Mapping[str, int]) -> str:
    return f"{format_size(amount['bytes'])} in {counted(amount['copies'], 'copy', 'copies')}"


def pin(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As in 'list': names, patterns or paths.")],
) -> None:
    """Let copies stay, whatever is cleared away.

    Neither 'prune' nor the quota takes them. By NAME all copies of that name are meant.
    """
    _set(ctx, names, pinned=True)


def unpin(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As in 'list': names, patterns or paths.")],
) -> None:
    """Let copies go when room is wanted.

    'prune' and the quota may take them again.
    """
    _set(ctx, names, pinned=False)


def _set(ctx: typer.Context, names: list[str], *, pinned: bool) -> None:
    invocation: Invocation = ctx.obj
    client = invocation.client()
    if any(is_pattern(name) for name in names):
        whole = [copy for copy in client.cache()["copies"] if copy["role"] != "part"]
        names = [copy["place"] for copy in chosen(whole, names)]
    answer = client.pin(names, pinned=pinned)
    did = "pinned" if pinned else "unpinned"
    lines = [f"{did} {printable(copy['name'])} at {printable(copy['place'])}" for copy in answer["copies"]]
    invocation.output.done(
        answer, human="\n".join(lines), quiet=[printable(copy["place"]) for copy in answer["copies"]]
    )


def chosen(copies: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Those of the copies that are meant; all where nothing is. Raises ``NotHeld`` for what means none."""
    if not names:
        return list(copies)
    wanted: dict[int, dict[str, Any]] = {}
    for name in names:
        fits = _means(name)
        found = {id(copy): copy for copy in copies if fits(copy)}
        if not found:
            raise NotHeld(name=name)
        wanted |= found
    return [copy for copy in copies if id(copy) in wanted]


def _means(name: str) -> Callable[[Mapping[str, Any]], bool]:
    if name.startswith("/"):
        return lambda copy: str(copy["place"]) == name
    if is_pattern(name):
        pattern = glob(name + "**" if name.endswith("/") else name)
        return lambda copy: pattern.fullmatch(copy["name"]) is not None
    return lambda copy: str(copy["name"]) == name


def row(copy: Mapping[str, Any]) -> tuple[str, ...]:
    """A copy in a table."""
    return (
        printable(copy["name"]),
        printable(copy["role"]),
        format_size(copy["size"]),
        _when(copy["since"]),
        _when(copy["used"]),
        "yes" if copy["pinned"] else "",
        printable(copy["place"]),
    )


def _when(moment: float | None) -> str:
    return age(moment) if moment else "-"
