from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StorageError
from engine.metadata.kept import Full, Records

MAX_KEYS, MAX_BYTES = 4, 40

KEYS = st.sampled_from(["a", "bb", "ö", "日本", "e"])
STEPS = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=30)))


def size(kept: dict[str, bytes]) -> int:
    return sum(len(key.encode()) + len(value) for key, value in kept.items())


@given(STEPS)
def test_it_is_a_dictionary_within_bounds(steps: list[tuple[str, bytes | None]]) -> None:
    """Each step puts a value or deletes a key. Bytes are those of the keys' UTF-8 and of the values."""
    records = Records(max_keys=MAX_KEYS, max_bytes=MAX_BYTES)
    model: dict[str, bytes] = {}
    for key, value in steps:
        if value is None:
            assert records.delete(key) == (model.pop(key, None) is not None)
            continue
        wanted = model | {key: value}
        if len(wanted) > MAX_KEYS or size(wanted) > MAX_BYTES:
            with pytest.raises(Full):
                records.put(key, value)
        else:
            assert records.put(key, value) == (model.get(key) != value)
            model = wanted
        assert len(records) == len(model)
        assert {each: records.get(each) for each in model} == model


def test_age_is_counted_from_the_last_put_or_use() -> None:
    now = 100.0
    records = Records(clock=lambda: now)
    for key in ("put again", "renewed", "left"):
        records.put(key, b"v")
    now = 110.0
    assert not records.put("put again", b"v")
    records.renew("renewed")
    records.renew("never was")
    assert records.older_than(10) == ["left"]
    assert records.older_than(10.5) == []
    assert set(records.older_than(0)) == {"put again", "renewed", "left"}


@given(STEPS)
def test_a_file_holds_what_was_kept(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bytes | None]]
) -> None:
    path = tmp_path_factory.mktemp("kept") / "records.db"
    records = Records(path)
    model: dict[str, bytes] = {}
    for key, value in steps:
        if value is None:
            records.delete(key)
            model.pop(key, None)
        else:
            records.put(key, value)
            model[key] = value
    records.close()
    records.close()
    again = Records(path, max_bytes=size(model))
    assert {key: again.get(key) for key in model} == model
    assert len(again) == len(model)
    with pytest.raises(Full):
        again.put("one more", b"")
    again.close()


def test_what_cannot_be_written_is_not_kept_either(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    records = Records(path)
    records.put("a", b"1")
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE records")
    other.close()
    with pytest.raises(StorageError):
        records.put("a", b"2")
    with pytest.raises(StorageError):
        records.delete("a")
    assert records.get("a") == b"1"
    records.close()


def test_a_file_that_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir, " * 1000)
    for path in (tmp_path / "letter.txt", tmp_path / "no" / "such"):
        with pytest.raises(StorageError, match=str(path)):
            Records(path)


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def test_a_new_file_and_what_lies_beside_it_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        records = Records(tmp_path / "records.db")
        records.put("a", b"1")
    finally:
        os.umask(before)
    found = modes(tmp_path)
    assert "records.db-wal" in found
    assert set(found.values()) == {0o600}
    records.close()


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    path.touch()
    path.chmod(0o640)
    Records(path).close()
    assert modes(tmp_path) == {"records.db": 0o640}


def test_a_link_of_ours_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("records.db")
    records = Records(tmp_path / "link")
    records.put("a", b"1")
    records.close()
    assert modes(tmp_path)["records.db"] == 0o600
    assert Records(tmp_path / "records.db").get("a") == b"1"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to another user, which takes root")
def test_a_link_of_somebody_else_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("records.db")
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(StorageError, match="the link to it belongs to"):
        Records(tmp_path / "link")
    assert not (tmp_path / "records.db").exists()
