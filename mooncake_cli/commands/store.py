"""What the commands of ``mooncake store`` share: which master is meant, and how to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.net import addresses
from mooncake_cli.invocation import Invocation
from p2pstore.errors import UsageError
from p2pstore.kv.master.admin_client import AdminClient
from p2pstore.settings.master_keys import MASTER_PORT, METRICS_PORT
from p2pstore.settings.settings import Settings

if TYPE_CHECKING:
    from p2pstore.kv.client.store import Store

Master = Annotated[
    str | None,
    typer.Option("--master", metavar="HOST[:PORT]", help=f"The store's master [default: 127.0.0.1:{MASTER_PORT}]."),
]
Admin = Annotated[
    str | None,
    typer.Option(
        "--admin", metavar="HOST[:PORT]", help=f"Its metrics port [default: the master's host:{METRICS_PORT}]."
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option("--tenant-id", metavar="TENANT", help="Whose keys are meant, where the master keeps tenants apart."),
]


def master_of(settings: Settings) -> tuple[str, int]:
    """Host and port at which the master serves clients. Raises ``UsageError``."""
    return _address(settings.master, MASTER_PORT)


def admin_of(settings: Settings) -> tuple[str, int]:
    """Host and port at which it serves people. Raises ``UsageError``."""
    if settings.master_admin is not None:
        return _address(settings.master_admin, METRICS_PORT)
    return master_of(settings)[0], METRICS_PORT


def admin_client(
    invocation: Invocation, master: str | None, admin: str | None, tenant: str | None = None
) -> AdminClient:
    """Asks the master that the options and settings mean. Commands that people are told to run ask it, too."""
    invocation.output.store |= {"--master": master, "--admin": admin, "--tenant-id": tenant}
    return AdminClient(addresses.join(*admin_of(invocation.settings(master=master, master_admin=admin))))


@contextmanager
def store_client(invocation: Invocation, master: str | None, tenant: str | None, **how: Any) -> Iterator[Store]:
    """A client of the store; without a word in ``how`` it gives no memory."""
    from p2pstore.kv.client.store import Store  # noqa: PLC0415 - it brings the engine along

    invocation.output.store |= {"--master": master, "--tenant-id": tenant}
    settings = invocation.settings(master=master, tenant_id=tenant)
    options = {"segment_size": 0, "tenant": settings.tenant_id, **how}
    with Store(addresses.join(*master_of(settings)), **options) as store:
        yield store


def _address(text: str, port: int) -> tuple[str, int]:
    if "://" in text:
        raise UsageError(
            detail=f"{text!r} is where a master is looked up; name the master itself with --master HOST:PORT"
        )
    return addresses.given(text, port)
