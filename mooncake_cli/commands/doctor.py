"""``mooncake doctor``: what a node needs, looked at one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.text import printable
from p2pstore.errors import PartialResult

if TYPE_CHECKING:
    from p2pstore.doctor import Check

EXAMPLES = {
    "doctor": (
        "mooncake doctor",
        "mooncake doctor --peer 10.0.0.7:7300    # and each path to that node, and back",
    )
}

MARKS = {"ok": "ok  ", "info": "-   ", "bad": "BAD "}


def doctor(
    ctx: typer.Context,
    peer: Annotated[
        str | None,
        typer.Option("--peer", metavar="HOST:PORT", help="Look at the paths to this node too, and back."),
    ] = None,
) -> None:
    """Look at what a node needs, and say what is wrong.

    The agent, its ports, the metadata server, the clock, locked memory, RDMA devices and why each can be used or not,
    and whether bytes come over each transport from this process to itself. Nothing is changed. Ends with status 10 when
    something is bad.
    """
    from p2pstore.doctor import State, examine  # noqa: PLC0415 - --help must not wait for it

    invocation: Invocation = ctx.obj
    settings = invocation.settings()
    checks = asyncio.run(examine(invocation.find_home(settings), settings, peer or ""))
    bad = [check for check in checks if check.state is State.BAD]
    invocation.output.data(
        {"ok": not bad, "checks": [check.to_json() for check in checks]},
        human="".join(f"{line}\n" for line in lines(checks)),
        quiet=[check.name for check in bad],
    )
    if bad:
        raise PartialResult(detail=f"{len(bad)} of {len(checks)} checks went badly")


def lines(checks: Sequence[Check]) -> list[str]:
    """A line for each check, and its advice below where there is some."""
    width = max(len(check.name) for check in checks)
    found = []
    for check in checks:
        found.append(f"{MARKS[check.state.value]}{printable(check.name):<{width}}  {printable(check.detail)}")
        if check.advice:
            found.append(f"    {'':<{width}}  {check.advice}")
    return found
