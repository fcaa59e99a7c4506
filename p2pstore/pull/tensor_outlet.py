"""What lies between a get of tensors and the thread that takes them one by one: a queue of bounded bytes.

The get waits, on its event loop, for room; whoever takes tensors gives theirs back with each next one. What takes them
may be slow for as long as it likes: it is the caller's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from p2pstore.errors import MooncakeError

LOOK_SECONDS = 1.0
"""Between two looks at whether anybody is left to bring what is waited for."""


class Item(NamedTuple):
    """A tensor, and how many bytes of memory it takes."""

    name: str
    tensor: Any
    length: int


class Outlet:
    """One get's. ``most`` bytes are under way and not yet given back; but a single tensor may be larger."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._queue: SimpleQueue[Item | BaseException | None] = SimpleQueue()
        self._held = 0  # on the loop's thread alone, as are the next two
        self._handed_out = 0
        self._freed = asyncio.Event()
        self._guard = threading.Lock()  # of the two below
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._closed = False

    # On the event loop

    def attach(self) -> None:
        """Tell it which task brings the tensors. Raises ``CancelledError`` where nobody wants them any more."""
        with self._guard:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            if self._closed:
                raise asyncio.CancelledError

    async def room(self, length: int) -> None:
        """Wait until so many bytes may be used, and count them: at the latest when all that was handed out is back."""
        while self._handed_out and self._held + length > self.most:
            self._freed.clear()
            await self._freed.wait()
        self._held += length

    def put(self, item: Item) -> None:
        """Hand out a tensor, for which there was room."""
        self._handed_out += item.length
        self._queue.put(item)

    def _give_back(self, length: int) -> None:
        self._handed_out -= length
        self._held -= length
        self._freed.set()

    # In the thread of the get

    def end(self, fault: BaseException | None) -> None:
        """No more tensors come; ``fault`` is why, unless that was all."""
        self._queue.put(fault)

    # In the thread of whoever takes them

    def items(self, alive: Callable[[], bool]) -> Iterator[tuple[str, Any]]:
        """Names and tensors, as they come. ``alive`` says whether there is still somebody to bring them."""
        while True:
            try:
                item = self._queue.get(timeout=LOOK_SECONDS)
            except Empty:
                if alive() or not self._queue.empty():
                    continue
                raise MooncakeError(detail="who brought tensors has ended without a word") from None
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            name, tensor, length = item
            del item  # or else its memory would be used for as long as the next one is waited for
            yield name, tensor
            del tensor
            self._on_loop(self._give_back, length)

    def close(self) -> None:
        """Nobody wants more: end the get, if it has not ended."""
        with self._guard:
            self._closed = True
            task = self._task
        if task is not None:
            self._on_loop(task.cancel)

    def _on_loop(self, call: Callable[..., object], *args: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed, and the get is over
                self._loop.call_soon_threadsafe(call, *args)
