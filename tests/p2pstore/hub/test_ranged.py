"""What is said of a server that cannot be read: the true cause, and no URL, which may be signed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from p2pstore.hub.ranged import BROKEN, fault_words
from tests.ports import closed_port

KEY = ConnectionKey("host", 443, True, True, None, None, None)


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nobody_listens(scheme: str) -> None:
    port = closed_port()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(BROKEN) as caught:
            await session.get(f"{scheme}://127.0.0.1:{port}/x?signature=secret")
    assert fault_words(caught.value) == f"127.0.0.1:{port}: connection refused"


async def test_a_server_that_speaks_no_tls() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server, aiohttp.ClientSession() as session:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BROKEN) as caught:
            await session.get(f"https://127.0.0.1:{port}/x")
    assert fault_words(caught.value).startswith(f"127.0.0.1:{port}: no TLS with it: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (aiohttp.ClientConnectorCertificateError(KEY, untrusted()), "host:443: its certificate is not trusted: self-signed certificate"),
        (aiohttp.ClientConnectorError(KEY, socket.gaierror(-2, "Name or service not known")), "host:443: name or service not known"),
        (asyncio.TimeoutError(), "it does not answer"),
        (aiohttp.ClientPayloadError("x"), "it sent less than it had said"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (aiohttp.InvalidURL("http://x/?signature=secret"), "InvalidURL"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_else_goes_wrong(error: Any, said: str) -> None:
    assert fault_words(error) == said
