"""``mooncake store why``: why a key cannot be read, or why a client has no hits."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from engine.net import addresses
from mooncake_cli.commands.store import Admin, Master, Tenant, admin_client, master_of
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import printable
from p2pstore.errors import UsageError
from p2pstore.kv.errors import MasterUnavailable

NO_PORT = 0
"""In place of a port that was not given."""

EXAMPLES = {
    "why": (
        "mooncake store why                          # of all clients, and of the pool",
        "mooncake store why step-7/w                 # of one key",
        "mooncake store why --client 10.0.0.3        # of the clients of one host",
    )
}


def why(
    ctx: typer.Context,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="The key that cannot be read.")] = None,
    client: Annotated[
        str | None, typer.Option("--client", metavar="HOST[:PORT]", help="Only what is wrong with this client.")
    ] = None,
    tenant: Tenant = None,
    master: Master = None,
    admin: Admin = None,
) -> None:
    """Say why a key cannot be read, why puts fail, or why the hit rate is 0.

    From what the master has seen: versions, calls that it does not know, memory that is full or gone, leases,
    evictions, tenants, keys that are nearly the same.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    if key is not None and client is not None:
        raise UsageError(detail="name a key or a client")
    settings = invocation.settings(master=master, master_admin=admin, tenant_id=tenant)
    asked = admin_client(invocation, master, admin)
    try:
        found = asked.why(key=key, tenant=settings.tenant_id, client=_address(client))
    except MasterUnavailable as error:
        if asked.reached:
            raise
        from p2pstore.kv.master.reach import clients_port  # noqa: PLC0415 - where something is wrong already

        detail = f"{error.fields['detail']}; {clients_port(*master_of(settings))}"
        raise MasterUnavailable(address=asked.address, detail=detail) from None
    lines = []
    for finding in found:
        lines.append(printable(finding["text"]))
        if finding["advice"]:
            lines.append(f"  {printable(output.commands(finding['advice']))}")
    output.data({"findings": found}, human="\n".join(lines), quiet=(printable(each["cause"]) for each in found))


def _address(client: str | None) -> str:
    """A client as the master knows it: by its address, with its port where one is given. Raises ``UsageError``."""
    if client is None:
        return ""
    host, port = addresses.given(client, NO_PORT)
    if not addresses.is_ip(host):
        try:
            host = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        except OSError:
            raise UsageError(detail=f"the name {host!r} is not known here; name the client by its address") from None
    return host if port == NO_PORT else addresses.join(host, port)
