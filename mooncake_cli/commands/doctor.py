"""``mooncake doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import counted, printable
from p2pstore.errors import UsageError

EXAMPLES = {
    "doctor": (
        "mooncake doctor",
        "mooncake doctor node7            # also every way to node7, and back",
        "mooncake doctor 10.0.0.7:7300 --json",
    )
}

COLUMNS = (Column("CHECK", style="bold"), Column("VERDICT"), Column("FOUND"))


def doctor(
    ctx: typer.Context,
    peer: Annotated[
        str | None,
        typer.Argument(
            metavar="[PEER]", help="A node's name or control address (HOST:PORT): also check the ways there."
        ),
    ] = None,
) -> None:
    """Look for what is wrong with this node, and say what to do.

    Checks the agent and its home, every endpoint of the metadata server, clocks, limits, RDMA devices, and each
    transport by moving some bytes within this machine; with PEER, also each way to that node and back. Ends with the
    status of the first check that failed; a warning is no failure.
    """
    from p2pstore.agent.options import credentials  # noqa: PLC0415 - --help must not wait for it
    from p2pstore.doctor.run import examine  # noqa: PLC0415 - as above
    from p2pstore.peers.checks import exit_code  # noqa: PLC0415 - as above

    invocation: Invocation = ctx.obj
    output = invocation.output
    settings = invocation.settings()
    if peer == "":
        raise UsageError(detail="PEER is empty; without it, this node alone is looked at")
    checks = list(examine(invocation.find_home(settings), settings, credentials(settings), peer))
    human = ""
    if output.mode == "human":
        rows = [(printable(c.subject), c.verdict, printable(c.detail)) for c in checks]
        human = output.table(COLUMNS, rows)
        advice = [
            f"{printable(c.subject)}: {printable(output.commands(c.advice))}"
            for c in checks
            if c.verdict != "ok" and c.advice
        ]
        human += "".join(f"\n{line}" for line in advice) + ("\n" if advice else "")
        bad = sum(c.verdict == "failed" for c in checks)
        human += f"\n{counted(bad, 'check')} failed\n" if bad else "\nnothing that is needed is broken\n"
    document = {"ok": exit_code(checks) == 0, "checks": [c.to_json() for c in checks]}
    output.data(document, human=human, quiet=(c.subject for c in checks if c.verdict == "failed"))
    if code := exit_code(checks):
        raise typer.Exit(code)
