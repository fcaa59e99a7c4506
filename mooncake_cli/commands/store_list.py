"""``mooncake store list``: the keys that there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mooncake_cli.commands.store import Admin, Master, Tenant, admin_client
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import counted, printable
from p2pstore.objects.units import format_size

EXAMPLES = {
    "list_keys": (
        "mooncake store list",
        "mooncake store list llama-3@ --limit 20",
        "mooncake store list --json | jq -r '.keys[].key'",
    )
}

COLUMNS = (Column("KEY", style="bold"), Column("SIZE", right=True), Column("REPLICAS", right=True), Column("TENANT"))


def list_keys(
    ctx: typer.Context,
    prefix: Annotated[str, typer.Argument(metavar="[START]", help="Only keys that begin so.")] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="COUNT", min=1, help="No more than so many [default: all].")
    ] = None,
    tenant: Tenant = None,
    master: Master = None,
    admin: Admin = None,
) -> None:
    """List the keys that there are.

    Keys whose value is being written are not listed. With --limit it is any of them, not the first.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    keys = list(admin_client(invocation, master, admin, tenant).keys(prefix, tenant, limit))
    keys.sort(key=lambda each: (each["key"], each.get("tenant", "")))
    human = ""
    if output.mode == "human":
        if keys:
            human = output.table(COLUMNS, [_row(each) for each in keys])
        else:
            output.message("there are no keys" + (f" that begin with '{printable(prefix)}'" if prefix else ""))
    output.data({"keys": keys}, human=human, quiet=(printable(each["key"]) for each in keys))
    if limit is not None and len(keys) == limit:
        output.message(f"{counted(limit, 'key')} listed, and there may be more")


def _row(key: Mapping[str, Any]) -> tuple[str, ...]:
    if "size" not in key:  # upstream's master tells names alone
        return printable(key["key"]), "-", "-", "-"
    return printable(key["key"]), format_size(key["size"]), str(key["replicas"]), printable(key["tenant"])
