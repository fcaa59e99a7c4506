"""The catalog: what this node has, in one SQLite file, so that an agent serves after a restart what it served before.

A *holding* is one place on this node where the whole object lies: its name, its manifest, its role (gold where it was
registered, replica where a get brought it), its root path, and the stamps of its files. Partial gets are not holdings:
their journal lies beside their destination. Files that were got without the others of their object are in a table of
their own (``p2pstore.holding.part_table``).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine import forks
from engine.files.abilities import abilities_of
from engine.files.stamps import STAMP_BYTES, FileStamp
from engine.memory.file_spans import FileSpan, FileSpans
from p2pstore.cluster.records import ObjectRecord, decode, encode
from p2pstore.errors import MooncakeError, StorageError
from p2pstore.holding.copy_note import CopyNote
from p2pstore.objects.json_slices import json_list
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.manifest_reader import parse
from p2pstore.objects.memory_objects import Lent

log = logging.getLogger(__name__)

BUSY_SECONDS = 10.0

MEMORY = ":memory:"
"""The path of a catalog that is kept nowhere."""

UNREADABLE = (MooncakeError, zlib.error, struct.error, ValueError, TypeError, RecursionError)
"""What reading a damaged row raises."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS manifests (digest TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holdings (
    name TEXT NOT NULL, root BLOB NOT NULL, digest TEXT NOT NULL REFERENCES manifests(digest),
    role TEXT NOT NULL, record BLOB NOT NULL, stamps BLOB NOT NULL, PRIMARY KEY (name, root)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_digest ON holdings(digest);
CREATE TABLE IF NOT EXISTS parts (
    digest TEXT PRIMARY KEY REFERENCES manifests(digest), record BLOB NOT NULL, place BLOB NOT NULL, files BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (
    name TEXT NOT NULL, root BLOB NOT NULL, digest TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (name, root)
) WITHOUT ROWID;
"""

_DROP_NOTES = (
    "DELETE FROM notes WHERE NOT EXISTS (SELECT 1 FROM holdings WHERE holdings.name = notes.name"
    " AND holdings.root = notes.root AND holdings.digest = notes.digest)"
)
"""Of holdings that an earlier version, which knows no notes, has replaced or forgotten."""

_PUT_NOTE = "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)"

_DROP_UNUSED = (
    "DELETE FROM manifests WHERE NOT EXISTS (SELECT 1 FROM holdings WHERE holdings.digest = manifests.digest)"
    " AND NOT EXISTS (SELECT 1 FROM parts WHERE parts.digest = manifests.digest)"
)


@dataclass(frozen=True)
class Holding:
    """One place where the whole object lies.

    ``spans`` are its files, in manifest order, with their stamps. Memory of this process has no root but ``views``, one
    a file; it is never in the catalog. ``note`` is kept up to date, and goes over to the same content with new stamps.
    """

    record: ObjectRecord
    role: str
    root: Path | None
    spans: Sequence[FileSpan]
    views: tuple[Lent, ...] = ()
    note: CopyNote = field(default_factory=CopyNote, compare=False)

    @property
    def name(self) -> str:
        """The object's name."""
        return self.record.name

    @property
    def place(self) -> str:
        """Where it lies, for people: a path, or ``memory``."""
        return str(self.root) if self.root else "memory"

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return self.record.manifest


class Catalog:
    """Holdings and their manifests. Thread-safe: one thread after the other."""

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises ``StorageError``."""
        try:
            self._db = _connect(path)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(path=path, detail=getattr(error, "strerror", None) or str(error)) from None
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._db.execute(_DROP_UNUSED)  # of holdings that others have replaced
            self._db.execute(_DROP_NOTES)
        except sqlite3.Error as error:
            self._db.close()
            raise StorageError(path=path, detail=str(error)) from None
        self.path = path
        self._lock = threading.Lock()
        forks.ask_at_fork(self)

    def inherited(self) -> list[int]:
        """See ``forks.Inherited``. SQLite forbids to close in a child what its parent has open: it keeps its files."""
        forks.never_end(self._db)
        return []

    def add(self, holding: Holding, manifest: Manifest) -> None:
        """Remember a holding; the same name at the same root is replaced."""
        self.add_all([(holding, manifest)])

    def add_all(self, holdings: Sequence[tuple[Holding, Manifest]]) -> None:
        """Remember several in one transaction: each costs a write to the disk, however much is in it."""
        self.change(holdings, ())

    def remove(self, holding: Holding) -> None:
        """Forget a holding, and its manifest with the last."""
        self.change((), [holding])

    def change(self, holdings: Sequence[tuple[Holding, Manifest]], gone: Sequence[Holding]) -> None:
        """Forget those that are ``gone``, then remember ``holdings``: all of it, or nothing where this raises."""
        places = [(holding.name, os.fsencode(holding.place)) for holding in gone]
        self.run(
            [
                ("DELETE FROM holdings WHERE name = ? AND root = ?", places),
                ("DELETE FROM notes WHERE name = ? AND root = ?", places),
                ("INSERT OR IGNORE INTO manifests VALUES (?, ?)", (manifest_row(m) for _, m in holdings)),
                ("INSERT OR REPLACE INTO holdings VALUES (?, ?, ?, ?, ?, ?)", map(_row, holdings)),
                (_PUT_NOTE, [_note_row(holding) for holding, _ in holdings]),
            ],
            unused=[holding.digest for holding in gone],
        )

    def run(self, statements: Sequence[tuple[str, Iterable[tuple[object, ...]]]], unused: Sequence[str] = ()) -> None:
        """Carry out statements, each for many rows, and drop those of the ``unused`` manifests that nothing needs.

        All of it, or nothing where this raises ``StorageError``.
        """
        with self._lock, self._transaction():
            for statement, rows in statements:
                self._db.executemany(statement, rows)
            self._db.executemany(_DROP_UNUSED + " AND digest = ?", [(digest,) for digest in unused])

    def note(self, holdings: Iterable[Holding]) -> None:
        """Remember the notes of holdings that are in it."""
        self.run([(_PUT_NOTE, map(_note_row, holdings))])

    def load(self) -> Iterator[tuple[Holding, Manifest]]:
        """Everything in it, by name. What no longer parses is skipped."""
        manifests = self.manifests("SELECT digest FROM holdings")
        query = (
            "SELECT h.root, h.digest, h.role, h.record, h.stamps, n.note FROM holdings h LEFT JOIN notes n"
            " ON n.name = h.name AND n.root = h.root AND n.digest = h.digest ORDER BY h.name, h.role, h.root"
        )
        for root, digest, role, record, stamps, note in self.rows(query):
            manifest = manifests.get(digest)
            if manifest is None:
                continue
            try:
                holding = _holding(root, role, record, stamps, manifest, CopyNote.parse(note))
            except UNREADABLE:
                log.warning("the entry of %r in the catalog is damaged", root)
                continue
            yield holding, manifest

    def manifests(self, digests: str) -> dict[str, Manifest]:
        """Those of the digests that a query selects. What no longer parses is skipped, with a line in the log."""
        found: dict[str, Manifest] = {}
        for digest, data in self.rows(f"SELECT digest, data FROM manifests WHERE digest IN ({digests})"):  # noqa: S608 - ours
            try:
                found[digest] = parse(zlib.decompress(data), peer="catalog", digest=digest)
            except UNREADABLE:
                log.warning("manifest %s in the catalog is damaged", digest)
        return found

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query selects. Raises ``StorageError``."""
        try:
            with self._lock:
                return self._db.execute(query).fetchall()
        except sqlite3.Error as error:
            raise StorageError(path=self.path, detail=str(error)) from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db, self.path)


def _connect(path: Path) -> sqlite3.Connection:
    """Open or create the file. Raises ``sqlite3.Error`` and ``OSError``.

    Where its file system has no locks or no shared mappings, SQLite does without: a home's lock, or its owner, sees to
    it that nobody else has the file open.
    """
    if str(path) == MEMORY:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    can = abilities_of(path.parent)
    if can.locks and can.mappings:
        return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    log.warning("the file system of %s does not do for a database that is shared (%s): it is used alone", path, can.why)
    url = f"file:{quote(os.fsencode(path))}?vfs=unix-none"
    db = sqlite3.connect(url, uri=True, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    return db


class _Transaction:
    """BEGIN IMMEDIATE, and COMMIT or ROLLBACK; a failure is a ``StorageError``."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def __enter__(self) -> None:
        self._run("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._run("ROLLBACK" if kind else "COMMIT")
        finally:
            if self._db.in_transaction:  # a commit that failed must not stand in the next one's way
                self._db.rollback()
        if isinstance(error, sqlite3.Error):
            raise StorageError(path=self._path, detail=str(error)) from None

    def _run(self, statement: str) -> None:
        try:
            self._db.execute(statement)
        except sqlite3.Error as error:
            raise StorageError(path=self._path, detail=str(error)) from None


def manifest_row(manifest: Manifest) -> tuple[object, ...]:
    """A manifest as the table has it."""
    return manifest.digest, _compressed(manifest.pieces())


def _row(pair: tuple[Holding, Manifest]) -> tuple[object, ...]:
    """A holding as the table has it."""
    holding, _ = pair
    stamps = _compressed(json_list(_stamps(holding.spans)))
    return holding.name, os.fsencode(holding.place), holding.digest, holding.role, encode(holding.record), stamps


def _stamps(spans: Sequence[FileSpan]) -> Iterator[Sequence[int]]:
    if isinstance(spans, FileSpans):
        return FileStamp.unpack_all(spans.stamps)
    stamps = (span.stamp for span in spans)
    return ((s.dev, s.inode, s.size, s.mtime_ns, s.ctime_ns) if s else () for s in stamps)


def _compressed(pieces: Iterable[bytes]) -> bytes:
    """The pieces, joined and compressed: of many files they are some ten times as large before."""
    making = zlib.compressobj(1)
    return b"".join([*map(making.compress, pieces), making.flush()])


def _note_row(holding: Holding) -> tuple[object, ...]:
    return holding.name, os.fsencode(holding.place), holding.digest, holding.note.to_text()


def _holding(root: bytes, role: str, record_bytes: bytes, stamps: bytes, manifest: Manifest, note: CopyNote) -> Holding:
    """One row. Raises one of ``UNREADABLE``."""
    record = decode(ObjectRecord, record_bytes)
    if record is None or record.manifest != manifest.digest or role not in {"gold", "replica"}:
        raise ValueError("no entry of ours")
    path = Path(os.fsdecode(root))
    return Holding(record, role, path, _spans(path, manifest, zlib.decompress(stamps)), note=note)


def _spans(root: Path, manifest: Manifest, stamps: bytes) -> FileSpans:
    packed = bytearray()
    for text in stamps[2:-2].split(b"],[") if len(manifest.files) else ():  # an entry at a time: others may run
        packed += FileStamp(*map(int, text.split(b","))).packed()
    if len(packed) != len(manifest.files) * STAMP_BYTES:
        raise ValueError("another number of stamps than of files")
    return FileSpans(str(root), manifest.columns.paths, manifest.columns.sizes, bytes(packed))
