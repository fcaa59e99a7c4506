"""The records of a metadata server: bounded, and written through to SQLite where they are to outlive it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.config.trust import why_no_link
from engine.errors import StorageError
from engine.files.system import system

MAX_KEY = 1024
"""Bytes of a key."""

MAX_VALUE = 8 << 20
"""Bytes of a value: some 80,000 buffers of one segment."""

MAX_KEYS = 100_000
"""Keys in all."""

MAX_BYTES = 256 << 20
"""Bytes of all keys and values."""


class Full(Exception):
    """A record does not fit: too many there are already, or too large."""


@dataclass(slots=True)
class Record:
    """A value, and when it was last put or found to be in use (by ``clock``)."""

    value: bytes
    seen: float


class Records:
    """Values by key. Not thread-safe: it belongs to one event loop."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_keys: int = MAX_KEYS,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With ``path`` they are kept in that SQLite file. Raises ``StorageError``."""
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._bytes = 0
        self._path = path
        self._database: sqlite3.Connection | None = None
        if path is not None:
            self._open(path)

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> bytes | None:
        """The value of ``key``."""
        record = self._records.get(key)
        return None if record is None else record.value

    def put(self, key: str, value: bytes) -> bool:
        """Store a value; whether that changed anything. Raises ``Full`` or ``StorageError``."""
        old = self._records.get(key)
        if old is not None and old.value == value:
            old.seen = self._clock()
            return False
        grown = len(value) - len(old.value) if old is not None else _size(key, value)
        if old is None and len(self._records) >= self._max_keys:
            raise Full(f"there are {self._max_keys} keys already")
        if self._bytes + grown > self._max_bytes:
            raise Full(f"the records would be larger than {self._max_bytes} bytes")
        self._write("INSERT OR REPLACE INTO records (key, value) VALUES (?, ?)", (key, value))
        self._records[key] = Record(value, self._clock())
        self._bytes += grown
        return True

    def delete(self, key: str) -> bool:
        """Remove a key; whether it was there. Raises ``StorageError``."""
        record = self._records.get(key)
        if record is None:
            return False
        self._write("DELETE FROM records WHERE key = ?", (key,))
        del self._records[key]
        self._bytes -= _size(key, record.value)
        return True

    def older_than(self, seconds: float) -> list[str]:
        """The keys that nobody has put, or found in use, for so long."""
        limit = self._clock() - seconds
        return [key for key, record in self._records.items() if record.seen <= limit]

    def renew(self, key: str) -> None:
        """Note that a record is in use."""
        record = self._records.get(key)
        if record is not None:
            record.seen = self._clock()

    def close(self) -> None:
        """Close the file. Twice is harmless."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _open(self, path: Path) -> None:
        try:
            # Each statement is a transaction of its own; one thread opens and another uses it.
            self._database = sqlite3.connect(_own(path), isolation_level=None, check_same_thread=False, timeout=5.0)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
            for key, value in self._database.execute("SELECT key, value FROM records LIMIT ?", (self._max_keys,)):
                self._records[str(key)] = Record(bytes(value), self._clock())
                self._bytes += _size(str(key), value)
        except sqlite3.Error as error:
            self.close()
            raise StorageError(path=path, detail=str(error)) from None
        except OSError as error:
            raise StorageError(path=path, detail=(error.strerror or str(error)).lower()) from None

    def _write(self, statement: str, values: tuple[str | bytes, ...]) -> None:
        if self._database is None:
            return
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise StorageError(path=self._path, detail=str(error)) from None


def _own(path: Path) -> Path:
    """The file at ``path``, or where a link leads; made for its owner alone where there is none.

    SQLite would make it for all to read. What it makes beside the file has the file's mode. Raises ``OSError``.
    """
    if os.path.lexists(path):
        why = why_no_link(path)
        if why:
            raise PermissionError(None, why, str(path))
    own = Path(os.path.realpath(path))
    with contextlib.suppress(FileExistsError):
        system.close(system.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    return own


def _size(key: str, value: bytes) -> int:
    return len(key.encode(errors="surrogatepass")) + len(value)
