"""The journal beside a partial destination: which chunks of it are verified, so that a get can be resumed.

One line of JSON that says for which manifest, then four bytes (little-endian) a verified chunk, appended as they come.
A torn tail is ignored. The file is locked (flock) while a get writes the destination, so that two never do. What the
journal says is a hint where to look, not a proof: on resume each of its chunks is hashed again.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from pathlib import Path

from p2pstore.errors import DestinationBusy, StorageError

FORMAT = "mooncake.journal.v1"
MAX_HEADER_BYTES = 4096
_CHUNK = struct.Struct("<I")


def is_for(path: Path, manifest: str) -> bool:
    """Whether a journal for this manifest stands at ``path``; looks only."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as stream:
            data = json.loads(stream.readline(MAX_HEADER_BYTES))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT and data.get("manifest") == manifest


class Journal:
    """An open, locked journal for one destination and one manifest."""

    def __init__(self, path: Path, manifest: str, name: str, destination: Path) -> None:
        """Open or create it. Raises ``DestinationBusy`` when it is locked, ``StorageError`` when it cannot be made."""
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(path=path, detail=str(error.strerror).lower()) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(self._file)
            if held.st_nlink == 0 or held.st_ino != os.stat(path).st_ino:
                raise BlockingIOError  # its last holder finished and removed it while we waited for the lock
        except OSError:
            os.close(self._file)
            raise DestinationBusy(path=destination) from None
        try:
            self.chunks = self._read(manifest)
            if self.chunks is None:
                self._begin(manifest, name)
        except BaseException:
            self.close()  # else the lock would stay as long as the process
            raise

    def _read(self, manifest: str) -> list[int] | None:
        """The chunks that it lists for this manifest; None where it is empty or for another."""
        with open(self._file, "rb", closefd=False) as stream:
            header = stream.readline(MAX_HEADER_BYTES)
            try:
                data = json.loads(header)
            except (ValueError, RecursionError):
                return None
            if not header.endswith(b"\n") or not isinstance(data, dict):
                return None
            if data.get("format") != FORMAT or data.get("manifest") != manifest:
                return None
            body = stream.read()
        whole = len(body) - len(body) % _CHUNK.size
        if whole != len(body):
            os.ftruncate(self._file, len(header) + whole)
        os.lseek(self._file, 0, os.SEEK_END)
        return [number for (number,) in _CHUNK.iter_unpack(body[:whole])]

    def _begin(self, manifest: str, name: str) -> None:
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        header = {"format": FORMAT, "manifest": manifest, "name": name}
        self._write(json.dumps(header).encode() + b"\n")

    @property
    def resumed(self) -> bool:
        """Whether there was a journal of this manifest before."""
        return self.chunks is not None

    def add(self, chunks: range) -> None:
        """Note verified chunks; one write, whichever thread calls."""
        self._write(b"".join(map(_CHUNK.pack, chunks)))

    def restart(self, chunks: list[int], manifest: str, name: str) -> None:
        """Begin again with only these chunks: those that were still right."""
        self._begin(manifest, name)
        self._write(b"".join(map(_CHUNK.pack, chunks)))

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise StorageError(path=self.path, detail=str(error.strerror).lower()) from None

    def close(self) -> None:
        """Unlock; the file stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """The destination is whole: the journal goes."""
        self.path.unlink(missing_ok=True)
        self.close()
