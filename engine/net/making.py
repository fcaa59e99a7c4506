"""The end of a listening socket of asyncio's: what was accepted by then is made first, so that somebody has it."""

from __future__ import annotations

import asyncio
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Iterable

MAKING_STEPS = 3
"""Turns of the event loop in which a connection is made: its task, its protocol, its reader."""


async def accept_no_more(listeners: Iterable[TransportSocket | socket.socket]) -> None:
    """Let connections be made that were accepted by now, and no others; to be called before a server is closed.

    asyncio makes one in a task of its own. Where its server is closed meanwhile nobody has it, and nobody closes it:
    its client waits until Python collects it (seen in 3.11).
    """
    loop = asyncio.get_running_loop()
    for listener in listeners:
        if listener.fileno() >= 0:
            loop.remove_reader(listener.fileno())
    for _ in range(MAKING_STEPS):
        await asyncio.sleep(0)
