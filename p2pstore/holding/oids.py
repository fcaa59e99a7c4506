"""What git and Git LFS call the files that lie here, by their content: found out once, and remembered.

To find out is to read a file, and to hash it in a second way; each chunk is compared with its own hash on the way, so
that no name is given to wrong bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.oid import DIGITS, is_oid, oid_hasher
from p2pstore.objects.waiting import in_thread

log = logging.getLogger(__name__)

READ_BYTES = 1 << 20
"""Hashed at once."""

MAX_OBJECTS = 256
"""Of which the names that are known stay in memory."""

_LINE = re.compile(r"([0-9]{1,9}) ([a-z0-9]{1,16}) ([0-9a-f]{40,64})")

Read = Callable[[str, int, memoryview], bool]
"""``read(digest, offset, view)`` fills the view from the object of that digest; False where that is not here."""


class Oids:
    """The names of files, by the object's digest, the file's number and the way. On the event loop, but for hashing."""

    def __init__(self, read: Read, directory: Path | None) -> None:
        """``directory`` is where they are remembered, if anywhere; it is made when there is something."""
        self._read = read
        self._directory = directory
        self._known: dict[str, dict[tuple[int, str], str]] = {}
        self._finding: dict[tuple[str, int, str], asyncio.Task[str]] = {}
        self._room = asyncio.Semaphore(max(1, os.cpu_count() or 1))

    async def of(self, manifest: Manifest, file: int, way: str) -> str:
        """The name of a file; empty where it does not lie here, or is not right. Others that ask wait for the same."""
        known = await self.known(manifest.digest)
        key = manifest.digest, file, way
        if (file, way) in known:
            return known[file, way]
        if key not in self._finding:
            task = self._finding[key] = asyncio.create_task(self._find(manifest, file, way), name="oid")
            task.add_done_callback(lambda _: self._finding.pop(key, None))
        return await asyncio.shield(self._finding[key])

    async def known(self, digest: str) -> Mapping[tuple[int, str], str]:
        """What is known of an object's files, without reading any."""
        if digest not in self._known:
            found = await asyncio.to_thread(self._load, digest)
            while len(self._known) >= MAX_OBJECTS:
                del self._known[next(iter(self._known))]
            self._known.setdefault(digest, found)
        return self._known.get(digest, {})

    async def learn(self, digest: str, file: int, way: str, oid: str) -> None:
        """Remember a name that somebody else found out."""
        await self.known(digest)
        known = self._known.setdefault(digest, {})
        if (file, way) not in known:
            known[file, way] = oid
            await asyncio.to_thread(self._save, digest, file, way, oid)

    async def close(self) -> None:
        """End what is being found out."""
        tasks = list(self._finding.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _find(self, manifest: Manifest, file: int, way: str) -> str:
        cancelled = threading.Event()
        async with self._room:
            oid = await in_thread(cancelled, self._hash, manifest, file, way, cancelled)
        if oid:
            await self.learn(manifest.digest, file, way, oid)
        return oid

    def _hash(self, manifest: Manifest, file: int, way: str, cancelled: threading.Event) -> str:
        columns = manifest.columns
        hashed = oid_hasher(way, columns.sizes[file])
        make = hasher(manifest.hash)
        buffer = memoryview(bytearray(min(READ_BYTES, columns.sizes[file])))
        for number in range(*manifest.first_chunks[file : file + 2]):
            chunk = manifest.chunk(number)
            ours = make()
            done = 0
            while done < chunk.length:
                view = buffer[: min(len(buffer), chunk.length - done)]
                if cancelled.is_set() or not self._read(manifest.digest, chunk.offset + done, view):
                    return ""
                hashed.update(view)
                ours.update(view)
                done += len(view)
            if ours.digest() != chunk.digest:
                log.warning("chunk %d of %s is not what was registered", number, manifest.digest[:12])
                return ""
        return hashed.hexdigest()

    def _load(self, digest: str) -> dict[tuple[int, str], str]:
        found: dict[tuple[int, str], str] = {}
        if self._directory is not None:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                for line in (self._directory / digest).read_text(encoding="ascii").splitlines():
                    match = _LINE.fullmatch(line)
                    if match and match[2] in DIGITS and is_oid(match[3], match[2]):
                        found[int(match[1]), match[2]] = match[3]
        return found

    def _save(self, digest: str, file: int, way: str, oid: str) -> None:
        """Add a line; one that was cut short when the machine stopped is none when it is read."""
        if self._directory is None:
            return
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            with open(self._directory / digest, "a", encoding="ascii") as stream:
                stream.write(f"\n{file} {way} {oid}")
        except OSError as error:
            log.info("%s: %s; it will be found out again", error.filename or self._directory, error.strerror)
