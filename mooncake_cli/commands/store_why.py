"""``mooncake store why``: why a key cannot be read, or why a client has no hits."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.net import addresses
from mooncake_cli.commands.store import Admin, Master, Tenant, admin_client, master_of
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Output
from mooncake_cli.text import printable
from p2pstore.errors import StorageError, UsageError
from p2pstore.kv.errors import EngineUnavailable, MasterUnavailable
from p2pstore.objects.file_system import words

if TYPE_CHECKING:
    from p2pstore.integrations.engines import EngineFacts

MAX_METRICS_BYTES = 16 << 20
"""Of an engine's metrics."""

METRICS_SECONDS = 10.0
"""For an engine to show them."""

NO_PORT = 0
"""In place of a port that was not given."""

EXAMPLES = {
    "why": (
        "mooncake store why                          # of all clients, and of the pool",
        "mooncake store why step-7/w                 # of one key",
        "mooncake store why --client 10.0.0.3        # of the clients of one host",
        "mooncake store why --engines ./prefill/mooncake.json ./decode/mooncake.json",
        "mooncake store why --engines http://10.0.0.3:8000 http://10.0.0.4:8000",
    )
}


def why(
    ctx: typer.Context,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="The key that cannot be read.")] = None,
    client: Annotated[
        str | None, typer.Option("--client", metavar="HOST[:PORT]", help="Only what is wrong with this client.")
    ] = None,
    engines: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--engines",
            metavar="A B",
            help="Why two engines do not find each other's blocks: files of 'serve init', keys, or http://HOST:PORT.",
        ),
    ] = None,
    tenant: Tenant = None,
    master: Master = None,
    admin: Admin = None,
) -> None:
    """Say why a key cannot be read, why puts fail, or why the hit rate is 0.

    From what the master has seen: versions, calls that it does not know, memory that is full or gone, leases,
    evictions, tenants, keys that are nearly the same. With --engines, from what two engines are: each by its
    mooncake.json, the directory that has it, a key that it has put, or the address of a running vLLM.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    if engines is not None:
        if key is not None or client is not None:
            raise UsageError(detail="--engines compares two engines; leave out the key or client")
        from p2pstore.integrations.engines import compare  # noqa: PLC0415 - only here

        _tell(output, [each._asdict() for each in compare(*map(_engine, engines))])
        return
    if key is not None and client is not None:
        raise UsageError(detail="name a key or a client")
    settings = invocation.settings(master=master, master_admin=admin, tenant_id=tenant)
    asked = admin_client(invocation, master, admin, tenant)
    try:
        found = asked.why(key=key, tenant=settings.tenant_id, client=_address(client))
    except MasterUnavailable as error:
        if asked.reached:
            raise
        from p2pstore.kv.master.reach import clients_port  # noqa: PLC0415 - where something is wrong already

        detail = f"{error.fields['detail']}; {clients_port(*master_of(settings))}"
        raise MasterUnavailable(address=asked.address, detail=detail) from None
    _tell(output, found)


def _tell(output: Output, found: Sequence[Mapping[str, Any]]) -> None:
    lines = []
    for finding in found:
        lines.append(printable(finding["text"]))
        if finding["advice"]:
            lines.append(f"  {printable(output.commands(finding['advice']))}")
    output.data({"findings": found}, human="\n".join(lines), quiet=(printable(each["cause"]) for each in found))


def _engine(named: str) -> EngineFacts:
    """What is known of an engine. Raises ``UsageError``, ``StorageError``, ``EngineUnavailable``."""
    from p2pstore.integrations import engines  # noqa: PLC0415 - as above

    if named.startswith(("http://", "https://")):
        return engines.of_metrics(named, _metrics(named))
    path = Path(named)
    if path.exists():
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        return engines.of_files(named, {each.name: _document(each) for each in files})
    found = engines.of_key(named)
    if found is None:
        raise UsageError(detail=f"{named!r} is no file, no key of vLLM's, and no http:// address")
    return found


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(path=path, detail=words(error)) from None
    except ValueError as error:
        raise UsageError(detail=f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UsageError(detail=f"{path} is no JSON object")
    return found


def _metrics(address: str) -> str:
    url = f"{address.rstrip('/')}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=METRICS_SECONDS) as answer:  # noqa: S310 - http or https, as checked
            return str(answer.read(MAX_METRICS_BYTES).decode(errors="replace"))
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        detail = words(reason) if isinstance(reason, OSError) else str(reason)
        raise EngineUnavailable(address=address, detail=detail) from None


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
