"""``mooncake store info``: one key, and where its value lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mooncake_cli.commands.store import Admin, Master, Tenant, admin_client
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import counted, printable
from p2pstore.objects.units import format_seconds, format_size

if TYPE_CHECKING:
    from mooncake_cli.output import Output

EXAMPLES = {
    "info": ("mooncake store info step-7/w", "mooncake store info step-7/w --json | jq -r '.replicas[].endpoint'")
}

REPLICAS = (Column("WHERE", style="bold"), Column("ENDPOINT"), Column("SIZE", right=True), Column("ADDRESS"))


def info(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key.")],
    tenant: Tenant = None,
    master: Master = None,
    admin: Admin = None,
) -> None:
    """Show one key, and where its value lies.

    Looking at it here grants no lease.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    wanted = invocation.settings(tenant_id=tenant).tenant_id
    answer = admin_client(invocation, master, admin, tenant).key(key, wanted)
    human = _report(output, answer) if output.mode == "human" else ""
    output.data(answer, human=human, quiet=(printable(_endpoint(each)) for each in answer["replicas"]))


def _report(output: Output, answer: Mapping[str, Any]) -> str:
    fields = [
        ("key", printable(answer["key"])),
        ("tenant", printable(answer["tenant"])),
        ("size", f"{format_size(answer['size'])} ({counted(answer['size'], 'byte')})"),
    ]
    if answer["leased_for"]:
        fields.append(("leased", f"for another {format_seconds(answer['leased_for'])}"))
    rows = [
        (
            printable(each["kind"]),
            printable(_endpoint(each)),
            format_size(each["size"]),
            hex(each["address"]) if "address" in each else "-",
        )
        for each in answer["replicas"]
    ]
    return f"{output.fields(fields)}\n{output.table(REPLICAS, rows)}"


def _endpoint(replica: Mapping[str, Any]) -> str:
    return str(replica.get("endpoint", replica.get("path", "-")))
