"""Reading a part of an origin's file though it breaks off, stalls or is away: it is asked again, for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from engine.net.backoff import Backoff
from engine.net.within import within
from p2pstore.errors import OriginUnavailable
from p2pstore.origins.quiet import Quiet

log = logging.getLogger(__name__)

RETRIES = Backoff(0.5, 15.0)
"""Pauses before an origin that broke off is asked again."""

PATIENCE_SECONDS = 120.0
"""Without a byte from the origin, after which it is given up."""

SECTION_PATIENCE_SECONDS = 60.0
"""The same of one section of several: it is left to others, who may have better luck, and looked at again later."""

BLOCK_SECONDS = 120.0
"""For the next block of an origin: one that hangs in the kernel, such as a network file system, hears of no timeout."""


class Stalled(Exception):
    """A section of which nothing comes."""

    def __init__(self, fault: OriginUnavailable) -> None:
        super().__init__(str(fault))
        self.fault = fault


class PatientReading:
    """Of one part. ``stream`` gives its bytes from an offset on, ``take`` hears each block."""

    def __init__(
        self,
        origin: str,
        stream: Callable[[int], AsyncGenerator[bytes, None]],
        take: Callable[[bytes], Awaitable[None]],
        quiet: Quiet,
    ) -> None:
        self._origin = origin
        self._stream = stream
        self._take = take
        self._quiet = quiet
        self._at = 0

    async def run(self, begin: int, end: int, *, resumes: bool, alone: bool) -> None:
        """Read the bytes from ``begin`` to ``end``; without ``resumes`` never from the middle on.

        Raises what ``stream`` and ``take`` raise; where nothing comes for long ``OriginUnavailable``, or ``Stalled``
        of a part that is not ``alone``.
        """
        loop = asyncio.get_running_loop()
        self._at, failures, last = begin, 0, loop.time()
        patience = PATIENCE_SECONDS if alone else SECTION_PATIENCE_SECONDS
        while self._at < end:
            before = self._at
            fault = await self._once()
            if self._at >= end:
                return
            if self._at > before:
                failures, last = 0, loop.time()
            if self._at > begin and not resumes:
                raise fault
            failures += 1
            pause = RETRIES.after(failures)
            if loop.time() + pause - last > patience:
                raise fault if alone else Stalled(fault)
            log.info("%s; going on from byte %d in %.1f s", fault, self._at, pause)
            await asyncio.sleep(pause)

    async def _once(self) -> OriginUnavailable:
        """Read until it ends, for whatever reason."""
        try:
            async with aclosing(self._stream(self._at)) as blocks:
                while block := await within(anext(blocks, b""), BLOCK_SECONDS):
                    await self._take(block)
                    self._at += len(block)
        except OriginUnavailable as error:
            fault = error
        except asyncio.TimeoutError:
            fault = OriginUnavailable(origin=self._origin, detail=f"it sent nothing for {BLOCK_SECONDS:.0f} s")
        else:
            return OriginUnavailable(origin=self._origin, detail="it ends too early")
        self._quiet.fault(fault)
        return fault
