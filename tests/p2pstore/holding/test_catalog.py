"""What the catalog was told it says again after a reopening; damaged rows cost only themselves."""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from engine.files.stamps import FileStamp
from engine.memory.file_spans import FileSpan, FileSpans
from p2pstore.errors import StorageError
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.objects.manifest import Manifest
from tests.p2pstore.samples import MIB, content, manifest_of, record_of, write_tree
from tests.refusing import RefusingFileSystem

FILES = {"a": content(100), "b/é x": b"", "c": content(5, 2)}
MANIFEST = manifest_of(FILES, MIB, ("empty",))


def holding_of(root: Path, manifest: Manifest = MANIFEST, name: str = "n", role: str = "gold") -> Holding:
    spans = tuple(
        FileSpan(str(root / f.path if f.path else root), f.size, FileStamp(1, 2, f.size, n))
        for n, f in enumerate(manifest.files)
    )
    return Holding(record_of(name, manifest), role, root, spans)


def test_columns_come_back_as_they_were(path: Path) -> None:
    holding = holding_of(Path("/r"))
    stamps = b"".join(span.stamp.packed() for span in holding.spans if span.stamp)
    spans = FileSpans("/r", MANIFEST.columns.paths, MANIFEST.columns.sizes, stamps)
    filled(path, replace(holding, spans=spans))
    ((found, _),) = loaded(path)
    assert found == holding
    assert isinstance(found.spans, FileSpans)
    assert found.spans.stamps == stamps


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.db"


def loaded(path: Path) -> list[tuple[Holding, Manifest]]:
    catalog = Catalog(path)
    try:
        return list(catalog.load())
    finally:
        catalog.close()


def filled(path: Path, *holdings: Holding) -> None:
    catalog = Catalog(path)
    for holding in holdings:
        catalog.add(holding, MANIFEST)
    catalog.close()


def test_an_empty_one(path: Path) -> None:
    assert loaded(path) == []


def test_reopening(path: Path) -> None:
    other = manifest_of({"": content(3)})
    first, second = holding_of(Path("/r 1")), holding_of(Path("/f"), other, "m", "replica")
    catalog = Catalog(path)
    catalog.add(first, MANIFEST)
    catalog.add(second, other)
    catalog.close()
    assert loaded(path) == [(second, other), (first, MANIFEST)]


def test_real_stamps_survive(path: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_tree(root, FILES)
    manifest = manifest_of(FILES)
    spans = tuple(FileSpan(str(root / f.path), f.size, FileStamp.of((root / f.path).stat())) for f in manifest.files)
    holding = Holding(record_of("n", manifest), "gold", root, spans)
    catalog = Catalog(path)
    catalog.add(holding, manifest)
    catalog.close()
    assert loaded(path) == [(holding, manifest)]


def test_the_same_name_and_root_is_replaced(path: Path) -> None:
    first = holding_of(Path("/r"))
    second = replace(first, role="replica")
    filled(path, first, second, holding_of(Path("/other")))
    assert [(h.role, h.root) for h, _ in loaded(path)] == [("gold", Path("/other")), ("replica", Path("/r"))]


def test_removing(path: Path) -> None:
    one, two = holding_of(Path("/1")), holding_of(Path("/2"))
    filled(path, one, two)
    catalog = Catalog(path)
    catalog.remove(one)
    assert [h for h, _ in catalog.load()] == [two]
    catalog.remove(two)
    catalog.remove(two)
    assert list(catalog.load()) == []
    catalog.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM manifests").fetchone() == (0,)
    db.close()


def test_a_root_that_is_not_utf8(path: Path) -> None:
    holding = holding_of(Path(os.fsdecode(b"/data/\xff\xfe")))
    filled(path, holding)
    assert loaded(path) == [(holding, MANIFEST)]
    catalog = Catalog(path)
    catalog.remove(holding)
    catalog.close()
    assert loaded(path) == []


DAMAGE = [
    "UPDATE manifests SET data = x'00'",
    "UPDATE manifests SET data = substr(data, 1, 10)",
    "UPDATE manifests SET digest = 'f' || substr(digest, 2)",
    "UPDATE holdings SET record = x'ff' WHERE root = x'2f31'",
    "UPDATE holdings SET record = '{}' WHERE root = x'2f31'",
    "UPDATE holdings SET stamps = x'00' WHERE root = x'2f31'",
    "UPDATE holdings SET stamps = 7 WHERE root = x'2f31'",
    "UPDATE holdings SET stamps = ? WHERE root = x'2f31'",
    "UPDATE holdings SET role = 'king' WHERE root = x'2f31'",
    "UPDATE holdings SET root = 5 WHERE root = x'2f31'",
]
STAMPS = [b"", b"{", b"[]", b"5", b"[[1,2,3,4]]", b"[[1],[1],[1]]", b"[1,2,3]", b"[" * 100_000]


@pytest.mark.parametrize(
    ("statement", "stamps"),
    [(s, b"") for s in DAMAGE] + [(DAMAGE[7], s) for s in STAMPS],
    ids=[*(str(n) for n in range(len(DAMAGE))), *(f"stamps {n}" for n in range(len(STAMPS)))],
)
def test_damaged_rows_are_skipped(path: Path, statement: str, stamps: bytes) -> None:
    filled(path, holding_of(Path("/1")), holding_of(Path("/2")))
    db = sqlite3.connect(path)
    db.execute(statement, (zlib.compress(stamps),) if "?" in statement else ())
    db.commit()
    db.close()
    survivors = [h.root for h, _ in loaded(path)]
    assert survivors == ([] if "manifests" in statement else [Path("/2")])


def test_what_is_no_database(path: Path) -> None:
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(StorageError):
        Catalog(path)


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        Catalog(tmp_path / "none" / "catalog.db")


def test_a_failed_write_leaves_no_transaction_behind(path: Path) -> None:
    catalog = Catalog(path)
    db = sqlite3.connect(path)
    db.execute("DROP TABLE holdings")
    db.close()
    with pytest.raises(StorageError):
        catalog.add(holding_of(Path("/1")), MANIFEST)
    with pytest.raises(StorageError, match="no such table"):
        catalog.add(holding_of(Path("/1")), MANIFEST)
    with pytest.raises(StorageError, match="no such table"):
        list(catalog.load())
    catalog.close()


def test_memory_only() -> None:
    catalog = Catalog(Path(":memory:"))
    holding = holding_of(Path("/1"))
    catalog.add(holding, MANIFEST)
    assert list(catalog.load()) == [(holding, MANIFEST)]
    catalog.close()


@pytest.mark.parametrize("call", ["flock", "lock_range", "map_shared"])
@pytest.mark.parametrize("before", [True, False], ids=["again", "at first"])
def test_where_there_are_no_locks_or_mappings_it_is_used_alone(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, before: bool
) -> None:
    """The paths of SQLite's URLs have characters of their own."""
    path = tmp_path / "a b?c#d%e" / "catalog.db"
    path.parent.mkdir()
    if before:
        filled(path, holding_of(Path("/first")))
    RefusingFileSystem(tmp_path, monkeypatch).refuses(call, errno.ENOLCK)
    filled(path, holding_of(Path("/r")))
    assert {holding.place for holding, _ in loaded(path)} == ({"/first", "/r"} if before else {"/r"})
    assert not path.with_name("catalog.db-shm").exists()
    monkeypatch.undo()
    assert len(loaded(path)) == 1 + before
