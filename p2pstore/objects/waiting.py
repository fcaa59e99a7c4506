"""Waiting for what was begun, though whoever waits is cancelled: it may hold what others want next."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def to_its_end(work: Awaitable[T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """What comes of ``work``, which goes on to its end however often the waiting task is cancelled meanwhile.

    ``on_cancel`` is called at each cancel.

    Raises what ``work`` raises; else ``CancelledError``, once it has ended, if there was a cancel.
    """
    running = asyncio.ensure_future(work)
    cancel: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancel = error
            on_cancel()
    result = running.result()
    if cancel is not None:
        raise cancel
    return result


async def in_thread(cancelled: threading.Event, work: Callable[..., T], *args: object) -> T:
    """Run ``work`` in a thread. A cancel sets ``cancelled``, and is raised once the thread has left ``work``."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancelled.set()
        with contextlib.suppress(Exception):  # that of a cancelled step says nothing more
            await to_its_end(running)
        raise


async def together(works: Iterable[Callable[[], Awaitable[T]]], *, at_once: int, name: str) -> list[T]:
    """What comes of all ``works``, in their order, ``at_once`` of them at a time; ``name`` is that of their tasks.

    When one fails, or this is cancelled, the others are cancelled and waited for. Raises the first error.
    """
    room = asyncio.Semaphore(at_once)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with room:
            return await work()

    tasks = [asyncio.create_task(one(work), name=name) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def telling(work: Awaitable[T], tell: Callable[[float], None], *, first: float, again: float) -> T:
    """What comes of ``work``; meanwhile ``tell`` hears the seconds waited, after ``first`` of them, then all ``again``.

    A cancel goes to ``work``, and is raised when that has ended.
    """
    running = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    began, pause = loop.time(), first
    try:
        while not (await asyncio.wait({running}, timeout=pause))[0]:
            tell(loop.time() - began)
            pause = again
    except BaseException:
        running.cancel()
        await to_its_end(asyncio.wait({running}))
        if not running.cancelled():
            running.exception()  # what it says comes too late
        raise
    return running.result()
