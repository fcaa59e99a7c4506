"""``mooncake store remove``: remove keys."""

from __future__ import annotations

from typing import Annotated

import typer

from mooncake_cli.commands.store import Admin, Master, Tenant, admin_client
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import counted, printable
from p2pstore.errors import MooncakeError, PartialResult, UsageError

EXAMPLES = {
    "remove": (
        "mooncake store remove step-7/w",
        "mooncake store remove step-7/w --force    # even while somebody reads it",
        "mooncake store remove --all",
    )
}


def remove(
    ctx: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY...", help="The keys.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all keys of the tenant.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove what is leased to readers, too.")] = False,
    tenant: Tenant = None,
    master: Master = None,
    admin: Admin = None,
) -> None:
    """Remove keys, and free what their values take.

    What somebody has looked up or read a moment ago is leased to them, and is left unless you say --force.
    """
    invocation: Invocation = ctx.obj
    if bool(keys) == everything:
        raise UsageError(detail="name the keys, or say --all")
    client = admin_client(invocation, master, admin, tenant)
    owner = invocation.settings(tenant_id=tenant).tenant_id
    if everything:
        count = client.remove_all(owner, force=force)
        left = "" if force else "; what is leased was left"
        invocation.output.done({"removed": count}, human=f"removed {counted(count, 'key')}{left}", quiet=[str(count)])
        return
    removed: list[str] = []
    failed: list[MooncakeError] = []
    for key in dict.fromkeys(keys or ()):
        try:
            client.remove(key, owner, force=force)
            removed.append(key)
        except MooncakeError as error:
            if len(keys or ()) == 1:
                raise
            invocation.output.warning(printable(f"{error} ({error.hint})" if error.hint else error))
            failed.append(error)
    human = f"removed {counted(len(removed), 'key')}"
    invocation.output.done({"removed": removed}, human=human, quiet=(printable(key) for key in removed))
    if failed and removed:
        total = len(removed) + len(failed)
        raise PartialResult.of(failed, f"{counted(len(failed), 'key')} of {total} could not be removed")
    if failed:
        raise failed[0]
