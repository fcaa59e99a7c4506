"""Files of this machine as an origin, such as those of a slow file system that every node mounts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from engine.files.system import system
from p2pstore.errors import OriginChanged, OriginNotFound, OriginRefused, OriginUnavailable, PathNotFound
from p2pstore.objects.file_system import words
from p2pstore.objects.selection import Selection
from p2pstore.objects.source import scan
from p2pstore.origins.address import Place
from p2pstore.origins.source import OriginFile

BLOCK_BYTES = 1 << 20
"""Read at once."""


class LocalSource:
    """See ``Source``."""

    reads = True
    revision = ""

    def __init__(self, place: Place, private: Sequence[Path] = ()) -> None:
        """What is ``private`` is never taken."""
        self._private = private
        self._shown = str(place)
        self._root = Path(place.path)

    async def files(self, selection: Selection) -> Sequence[OriginFile]:
        """See ``Source.files``."""
        return await asyncio.to_thread(self._files, selection)

    def _files(self, selection: Selection) -> Sequence[OriginFile]:
        try:
            tree = scan(self._root, selection, private=self._private)
        except PathNotFound:
            raise OriginNotFound(origin=self._shown, detail="there is no such file") from None
        return [self._file(path, span.path) for path, span in zip(tree.paths, tree.files, strict=True)]

    def _file(self, path: str, place: str) -> OriginFile:
        try:
            status = os.stat(place)
        except OSError as error:
            raise self._fault(error) from None
        return OriginFile(path, place, status.st_size, _version(status))

    async def stream(self, file: OriginFile, begin: int, end: int) -> AsyncGenerator[bytes, None]:
        """See ``Source.stream``."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._open, file))
        try:
            descriptor = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_let_go)  # it may hang, on a network file system
            raise
        try:
            while begin < end:
                block = await asyncio.to_thread(self._read, descriptor, file, begin, min(BLOCK_BYTES, end - begin))
                begin += len(block)
                yield block
        finally:
            os.close(descriptor)

    async def sure(self, file: OriginFile) -> bool:  # noqa: ARG002 - of any
        """See ``Source.sure``."""
        return True

    async def close(self) -> None:
        """See ``Source.close``."""

    def _open(self, file: OriginFile) -> int:
        try:
            return os.open(file.place, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._fault(error) from None

    def _read(self, descriptor: int, file: OriginFile, begin: int, count: int) -> bytes:
        """A block of what was the file when it was looked at, before it was read and after."""
        try:
            data = system.pread(descriptor, count, begin)
            now = os.fstat(descriptor)
        except OSError as error:
            raise self._fault(error) from None
        if now.st_size != file.size or _version(now) != file.version or not data:
            raise OriginChanged(origin=self._shown, detail=f"{file.place} was written to or replaced")
        return data

    def _fault(self, error: OSError) -> OriginNotFound | OriginRefused | OriginUnavailable:
        if isinstance(error, FileNotFoundError):
            return OriginNotFound(origin=self._shown, detail=words(error))
        if isinstance(error, PermissionError):
            return OriginRefused(origin=self._shown, detail=words(error))
        return OriginUnavailable(origin=self._shown, detail=words(error))


def _let_go(opening: asyncio.Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _version(status: os.stat_result) -> str:
    """The same on every node that mounts it, and of files of two machines never the same: ctime cannot be set."""
    return f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
