"""One file of the upstream's, on its way into this node's store; clients read it while it comes.

It is hashed twice as it comes: for the cluster, and in the way in which the upstream told its name. Until that name is
proven the last byte is kept back, so that nobody has the whole of a file that is not right. Where the upstream breaks
off, the rest is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

from engine.files.system import system
from engine.net.backoff import Backoff
from p2pstore.errors import Interrupted, OriginDiffers, OriginUnavailable, StorageError
from p2pstore.holding.incoming import Incoming
from p2pstore.hub.documents import RepoFile
from p2pstore.hub.repos import NotYet
from p2pstore.objects.file_system import words
from p2pstore.objects.manifest import choose_chunk_size
from p2pstore.objects.oid import GIT, SHA256, oid_hasher
from p2pstore.objects.waiting import to_its_end

log = logging.getLogger(__name__)

RETRIES = Backoff(0.5, 15.0)
"""Pauses before an upstream that broke off is asked again."""

PATIENCE_SECONDS = 120.0
"""Without a byte from the upstream, after which it is given up."""

READ_BYTES = 1 << 20
"""Given out at once."""

Stream = Callable[[int], AsyncGenerator[bytes, None]]
"""The bytes of the file from an offset on."""


class Fetch:
    """A file that comes. ``run`` brings it; any number of ``pieces`` follow. On the event loop."""

    def __init__(self, file: RepoFile, origin: str, stream: Stream) -> None:
        """``origin`` is where it comes from, for people."""
        self.file = file
        self._origin = origin
        self._stream = stream
        self._hashed = oid_hasher(SHA256 if file.lfs else GIT, file.size)
        self._written = 0
        self._proven = False
        self._fault: BaseException | None = None
        self._descriptor = -1
        self._changed = asyncio.Event()
        self._readers = 0
        self._over = False

    async def run(self, directory: Path, name: str, hash_name: str) -> Incoming:
        """Bring it; what came, to be registered. Raises ``OriginDiffers``, ``StorageError``, or what ended it."""
        chunk_size = choose_chunk_size(self.file.size)
        incoming = await to_its_end(asyncio.to_thread(Incoming, directory, name, hash_name, chunk_size))
        try:
            self._descriptor = await asyncio.to_thread(_open, incoming.path)
            await self._bring(incoming)
            self._prove()
        except BaseException as error:
            if self._fault is None:
                self._fault = error if isinstance(error, Exception) else Interrupted(detail="the node is ending")
            await to_its_end(asyncio.to_thread(incoming.abort))
            raise
        finally:
            self._over = True
            self._news()
            self._let_go()
        return incoming

    def _prove(self) -> None:
        if self._hashed.hexdigest() != self.file.oid:
            detail = f"{self.file.path} has another hash than {self.file.oid}"
            raise OriginDiffers(origin=self._origin, detail=detail)
        self._proven = True

    async def _bring(self, incoming: Incoming) -> None:
        loop = asyncio.get_running_loop()
        failures, last = 0, loop.time()
        while self._written < self.file.size:
            before = self._written
            fault = OriginUnavailable(origin=self._origin, detail=f"{self.file.path} ends too early")
            try:
                async with aclosing(self._stream(before)) as blocks:
                    async for block in blocks:
                        await to_its_end(asyncio.to_thread(self._take, incoming, block))
                        self._news()
            except OriginUnavailable as error:
                fault = error
            if self._written >= self.file.size:
                return
            if self._written > before:
                failures, last = 0, loop.time()
            failures += 1
            pause = RETRIES.after(failures)
            if loop.time() + pause - last > PATIENCE_SECONDS:
                raise fault
            log.info("%s; going on from byte %d in %.1f s", fault, self._written, pause)
            await asyncio.sleep(pause)

    def _take(self, incoming: Incoming, block: bytes) -> None:
        if self._written + len(block) > self.file.size:
            detail = f"{self.file.path} has more than {self.file.size} bytes"
            raise OriginDiffers(origin=self._origin, detail=detail)
        incoming.write(block)
        self._hashed.update(block)
        self._written += len(block)

    def _news(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def _good(self) -> int:
        """Bytes that may be given out."""
        return self.file.size if self._proven else max(0, min(self._written, self.file.size - 1))

    async def reach(self, begin: int) -> None:
        """Wait until a byte is there. Raises what ended the fetch."""
        while self._fault is None and self._good <= begin:
            await self._changed.wait()
        if self._fault is not None:
            raise self._fault

    @property
    def failed(self) -> bool:
        """Whether it has come to nothing."""
        return self._fault is not None

    def join(self) -> None:
        """Somebody is going to read. Raises what ended the fetch, and ``NotYet`` where its file was put in place."""
        if self._fault is not None:
            raise self._fault
        if self._over and self._descriptor < 0:
            raise NotYet(f"{self.file.path} has just come")
        self._readers += 1

    def leave(self) -> None:
        """Somebody reads no more."""
        self._readers -= 1
        self._let_go()

    async def pieces(self, begin: int, end: int) -> AsyncGenerator[memoryview, None]:
        """The bytes of a range, in order, as they come, for who has joined. Raises as ``reach``."""
        while begin < end:
            await self.reach(begin)
            count = min(end, self._good) - begin
            data = await asyncio.to_thread(_read, self._descriptor, min(count, READ_BYTES), begin)
            begin += len(data)
            yield memoryview(data)

    def _let_go(self) -> None:
        if self._over and not self._readers and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Following:
    """A reader of a range of a fetch, as the server wants it. Close it in the end."""

    def __init__(self, fetch: Fetch, begin: int, end: int) -> None:
        """Raises as ``Fetch.join``."""
        fetch.join()
        self._fetch = fetch
        self._begin, self._end = begin, end

    async def first(self) -> None:
        """Wait for the first byte. Raises as ``Fetch.reach``."""
        await self._fetch.reach(self._begin)

    def pieces(self) -> AsyncGenerator[memoryview, None]:
        """The bytes, in order."""
        return self._fetch.pieces(self._begin, self._end)

    def close(self) -> None:
        """Read no more."""
        self._fetch.leave()


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise StorageError(path=path, detail=words(error)) from None


def _read(descriptor: int, count: int, offset: int) -> bytes:
    try:
        data = system.pread(descriptor, count, offset)
    except OSError as error:
        raise StorageError(path="what comes from the hub", detail=words(error)) from None
    if not data:
        raise StorageError(path="what comes from the hub", detail="it became shorter")
    return data
