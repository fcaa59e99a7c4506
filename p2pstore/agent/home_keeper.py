"""Sees that an agent's home stays its own: a socket that was removed is made again, and a home that is gone ends it.

A cleaner of temporary files, a logout, the end of a batch job: each may take away what an agent is reached by. It would
go on holding ports and a lease, and nobody could end it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from p2pstore.agent.home import Home
from p2pstore.agent.home_lock import HomeLock
from p2pstore.agent.private import OWN
from p2pstore.errors import HomeLost, StorageError

log = logging.getLogger("mooncake")

LOOK_SECONDS = 2.0
"""Between two looks."""

LOOKS = 2
"""So many in a row must find the home gone: one may hit upon a file server that is restarted."""

SLOW_SECONDS = 30.0
"""A look that takes longer is told of: the home's file system does not answer."""


class HomeKeeper:
    """Looks after one home, once ``listen_again(path)`` can make the agent listen on a socket there."""

    def __init__(
        self,
        home: Home,
        lock: HomeLock,
        listen_again: Callable[[Path], Awaitable[None]],
        lost: Callable[[HomeLost], None],
    ) -> None:
        """``lost`` is called once, when the home is gone."""
        self._home = home
        self._lock = lock
        self._listen_again = listen_again
        self._lost = lost
        self._socket = home.socket
        self._complaint = ""
        self._listening = asyncio.Lock()
        self._ended = False

    async def keep(self) -> None:
        """Look until the home is lost, or cancelled; after ``end`` no socket is made any more."""
        misses = 0
        while misses < LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            reason = await self._look()
            misses = misses + 1 if reason else 0
            if not reason:
                await self._see_to_socket()
        self._lost(HomeLost(home=self._home.root, detail=reason))

    async def end(self) -> None:
        """The agent is about to remove its socket: leave it so. A socket that is being made is waited for.

        Else an agent that was stopped for longer than a look takes, and is ended, would find its socket gone and listen
        again, with nobody left to close that.
        """
        async with self._listening:
            self._ended = True

    async def _look(self) -> str:
        looking = asyncio.ensure_future(asyncio.to_thread(self._lock.lost))
        while not (await asyncio.wait({looking}, timeout=SLOW_SECONDS))[0]:
            log.warning("the file system of %s has not answered for %g s", self._home.root, SLOW_SECONDS)
        return looking.result()

    async def _see_to_socket(self) -> None:
        if await asyncio.to_thread(os.path.lexists, self._socket):
            return
        problems: list[str] = []
        for path in (self._home.socket, self._home.root / "run" / self._home.socket.name):
            try:
                await asyncio.to_thread(path.parent.mkdir, OWN, exist_ok=True)
                async with self._listening:
                    if self._ended:
                        return
                    await self._listen_again(path)
                await asyncio.to_thread(self._lock.moved, path)
            except (OSError, StorageError) as error:
                problems.append(str(error))
            else:
                log.warning("the agent's socket was removed; it is %s again", path)
                self._socket, self._complaint = path, ""
                return
        if problems[0] != self._complaint:
            self._complaint = problems[0]
            log.error("the agent's socket was removed, and cannot be made again: %s", problems[0])
