"""``mooncake metadata``: the HTTP metadata server of a Mooncake deployment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine import signals
from engine.errors import NoSuchAddress
from engine.net import addresses, sockets
from engine.net.listening import address_of
from engine.net.published import published
from mooncake_cli.invocation import Invocation
from p2pstore.errors import NothingGuards

if TYPE_CHECKING:
    from engine.metadata.server import MetadataServer
    from mooncake_cli.output import Output

DEFAULT_PORT = 8080
DEFAULT_LISTEN = f"127.0.0.1:{DEFAULT_PORT}"

EXAMPLES = {
    "serve": (
        "mooncake metadata serve",
        "mooncake metadata serve --listen 10.0.0.1:8080 --insecure --store /var/lib/mooncake/metadata.db",
    )
}


def serve(
    ctx: typer.Context,
    listen: Annotated[
        str,
        typer.Option(
            "--listen",
            metavar="PLACE[:PORT]",
            help=f"Address, interface or network to listen on [default: {DEFAULT_LISTEN}].",
        ),
    ] = DEFAULT_LISTEN,
    store: Annotated[
        Path | None, typer.Option("--store", metavar="FILE", help="Keep the records in FILE [default: in memory].")
    ] = None,
    expire: Annotated[
        float | None,
        typer.Option("--expire", metavar="SECONDS", min=1, help="Remove segments that are gone for so long."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond loopback; there is no password.")] = False,
) -> None:
    """Serve segment metadata over HTTP, in place of Mooncake's own metadata server.

    Prints the URL for clients, then serves until it is told to end. Without --store the records end with it. A segment
    expires when nothing accepts connections at its handshake address.
    """
    invocation: Invocation = ctx.obj
    host, port = _address(listen)
    if not insecure and sockets.is_exposed(host):
        raise NothingGuards(address=host)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    asyncio.run(_serve(invocation.output, host, port, store, expire))


def _address(listen: str) -> tuple[str, int]:
    host, port = addresses.given_place(listen, DEFAULT_PORT)
    return address_of(host), port


def _url(server: MetadataServer) -> str:
    """What clients are given: of a server on all addresses, with the one that others reach, where that is plain."""
    host, port = addresses.parse(server.address)
    with contextlib.suppress(NoSuchAddress):
        host = published(host)
    return server.url.replace(server.address, addresses.join(host, port), 1)


async def _serve(output: Output, host: str, port: int, store: Path | None, expire: float | None) -> None:
    from engine.metadata.kept import Records  # noqa: PLC0415 - --help must not wait for it
    from engine.metadata.server import MetadataServer  # noqa: PLC0415 - it brings aiohttp along

    ended = asyncio.Event()
    for number in signals.ending():
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    records = Records(store)
    server = MetadataServer(records, expire=expire)
    try:
        await server.start(host, port)
        url = _url(server)
        output.record({"url": url}, url)
        await ended.wait()
    finally:
        await server.close()
        records.close()
