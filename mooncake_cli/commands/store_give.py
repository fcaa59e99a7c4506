"""``mooncake store give``: give memory of this machine to a pool, for as long as this runs."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from engine import signals
from engine.cgroups import memory_available
from engine.net import addresses, listening, sockets
from mooncake_cli.commands.store import Master, master_of, store_client
from mooncake_cli.invocation import Invocation
from p2pstore.errors import UsageError
from p2pstore.kv.errors import GiverUnguarded
from p2pstore.objects.units import format_size, parse_size

EXAMPLES = {
    "give": (
        "mooncake store give 4GiB",
        "mooncake store give 4GiB --disk /mnt/nvme0/values --disk-limit 200GiB",
        "mooncake store give 64GiB --master 10.0.0.1 --host 10.0.0.7 --insecure",
    )
}


def give(
    ctx: typer.Context,
    size: Annotated[str, typer.Argument(metavar="SIZE", help="How much, like 4GiB.")],
    host: Annotated[
        str,
        typer.Option("--host", metavar="PLACE", help="Address, interface or network at which clients reach it."),
    ] = addresses.LOOPBACK,
    disk: Annotated[
        Path | None,
        typer.Option("--disk", metavar="DIRECTORY", help="Keep values on this disk, too."),
    ] = None,
    disk_limit: Annotated[
        str, typer.Option("--disk-limit", metavar="SIZE", help="How much of that disk they may take.")
    ] = "16GiB",
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve whoever reaches an open address.")] = False,
    master: Master = None,
) -> None:
    """Give memory of this machine to a pool, for as long as this runs.

    Values of any client may lie there. SIGTERM takes the memory back, with what lies in it. What is on disk stays, for
    the next one that gives this directory; a master writes to disks that was started with --offload.
    """
    invocation: Invocation = ctx.obj
    try:
        count, limit = parse_size(size), parse_size(disk_limit)
    except ValueError as error:
        raise UsageError(detail=str(error)) from None
    if not count:
        raise UsageError(detail="0 bytes are nothing to give")
    address = listening.address_of(addresses.given_place(host)[0])
    if not insecure and sockets.is_exposed(address):
        raise GiverUnguarded(address=address)
    free = memory_available()
    if free is not None and count > free:
        invocation.output.warning(
            f"{format_size(count)} are more than the {format_size(free)} of memory that are free here: the kernel may "
            "end this, or another process, when values fill them"
        )
    ended = threading.Event()
    for number in signals.ending():
        signal.signal(number, lambda *_: ended.set())
    kept = {} if disk is None else {"disk": disk, "disk_limit": limit}
    with store_client(invocation, master, None, segment_size=count, hostname=address, **kept) as store:
        told = addresses.join(*master_of(invocation.settings(master=master)))
        output = invocation.output
        document = {"endpoint": store.name, "size": count, "master": told}
        if output.mode == "human":
            output.message(f"{format_size(count)} at {store.name} are in the pool of the master at {told}")
        else:
            output.record(document, store.name)
        with contextlib.suppress(KeyboardInterrupt):
            ended.wait()
