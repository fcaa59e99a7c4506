"""Parts in the catalog: what was told is said again after a reopening, and manifests live as long as somebody needs them."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.files.stamps import FileStamp
from engine.memory.file_spans import FileSpan
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.holding.part_table import KeptPart, PartTable
from tests.p2pstore.samples import MIB, content, manifest_of, record_of

MANIFEST = manifest_of({"a": content(100), "b/é x": content(7, 3), "c": content(5, 2)}, MIB)
STAMP = FileStamp(1, 2, 7, 4, 5)
PART = KeptPart(
    record_of("n", MANIFEST), MANIFEST, Path("/r/\udcff"), [1], [FileSpan("/r/\udcff/b/é \udc80", 7, STAMP)]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.db"


@pytest.fixture
def catalog(path: Path) -> Iterator[Catalog]:
    made = Catalog(path)
    yield made
    made.close()


def reopened(path: Path) -> list[KeptPart]:
    catalog = Catalog(path)
    try:
        return list(PartTable(catalog).load())
    finally:
        catalog.close()


def test_it_comes_back_as_it_was(path: Path, catalog: Catalog) -> None:
    PartTable(catalog).keep(PART)
    assert reopened(path) == [PART]
    other = replace(PART, place=Path("/s"), numbers=[], spans=[])
    PartTable(catalog).keep(other)
    assert reopened(path) == [other]
    PartTable(catalog).forget(MANIFEST.digest)
    assert reopened(path) == []
    PartTable(catalog).forget(MANIFEST.digest)


def test_a_manifest_stays_while_anybody_needs_it(path: Path, catalog: Catalog) -> None:
    spans = [FileSpan(f"/w/{f.path}", f.size, FileStamp(1, 2, f.size, 3)) for f in MANIFEST.files]
    whole = Holding(PART.record, "replica", Path("/w"), spans)
    table = PartTable(catalog)
    catalog.add(whole, MANIFEST)
    table.keep(PART)
    catalog.remove(whole)
    assert reopened(path) == [PART]
    catalog.add(whole, MANIFEST)
    table.forget(MANIFEST.digest)
    assert [manifest for _, manifest in catalog.load()] == [MANIFEST]
    catalog.remove(whole)
    assert catalog.rows("SELECT count(*) FROM manifests") == [(0,)]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("record", b"{}"),
        ("files", b"x"),
        ("files", zlib.compress(b"7")),
        ("files", zlib.compress(b'[[9, "/p", 7, [1, 2, 7, 4, 5]]]')),
        ("files", zlib.compress(b'[[-2, "/p", 7, [1, 2, 7, 4, 5]]]')),
        ("files", zlib.compress(b'[[1, "/p", 8, [1, 2, 8, 4, 5]]]')),
        ("files", zlib.compress(b'[[1, "/p", 7, [1, 2]]]')),
    ],
)
def test_a_damaged_row_costs_only_itself(
    path: Path, catalog: Catalog, column: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    other = manifest_of({"z": content(9)}, MIB)
    kept = KeptPart(record_of("o", other), other, Path("/o"), [0], [FileSpan("/o/z", 9, FileStamp(1, 2, 9, 4, 5))])
    table = PartTable(catalog)
    table.keep(PART)
    table.keep(kept)
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE parts SET {column} = ? WHERE digest = ?", (value, MANIFEST.digest))
    db.close()
    assert reopened(path) == [kept]
    assert "is damaged" in caplog.text


def test_a_part_without_its_manifest(path: Path, catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    PartTable(catalog).keep(PART)
    with sqlite3.connect(path) as db:  # as an agent that knows no parts does when it opens the catalog
        db.execute("DELETE FROM manifests")
    db.close()
    assert reopened(path) == []
    assert "is damaged" in caplog.text
