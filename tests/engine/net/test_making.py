"""A connection that comes in the moment in which its server ends is closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings

import pytest

from engine.net import sockets
from engine.net.making import accept_no_more

WAIT = 60.0


class Connections(asyncio.Protocol):
    """All that were made, to be closed with their server."""

    def __init__(self, made: list[asyncio.BaseTransport]) -> None:
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made.append(transport)


@pytest.mark.parametrize("steps", range(6))
async def test_each_that_was_accepted_is_made_and_no_other(steps: int) -> None:
    """Two turns of the loop after it came nobody had it."""
    listener = sockets.listen("127.0.0.1", 0)
    made: list[asyncio.BaseTransport] = []
    server = await asyncio.get_running_loop().create_server(lambda: Connections(made), sock=listener)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with socket.create_connection(listener.getsockname(), WAIT) as client:
            for _ in range(steps):
                await asyncio.sleep(0)
            await accept_no_more(server.sockets)
            server.close()
            for transport in made:
                transport.close()
            with contextlib.suppress(ConnectionResetError):  # where it was not accepted at all
                assert await asyncio.to_thread(client.recv, 1) == b""
        gc.collect()
    assert [str(each.message) for each in said] == []


async def test_a_socket_that_was_closed_is_passed_over() -> None:
    listener = sockets.listen("127.0.0.1", 0)
    listener.close()
    await accept_no_more([listener])
