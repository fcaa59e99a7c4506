"""A file that was written or replaced never fits its stamp; one that the file system merely tells otherwise does."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.files import stamps
from engine.files.stamps import NO_NUMBER, TIME_UNITS_NS, FileStamp, numbers_last, pack_lasting, pack_stamp
from tests.refusing import RefusingFileSystem

STAMP = FileStamp(dev=7, inode=11, size=100, mtime_ns=1_700_000_001_234_567_891)


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingFileSystem:
    return RefusingFileSystem(tmp_path, monkeypatch)


def test_changes_do_not_fit() -> None:
    for change in ({"size": 101}, {"mtime_ns": STAMP.mtime_ns + 1}, {"inode": 12}, {"dev": 8}, {"mtime_ns": 0}):
        assert not STAMP.fits(replace(STAMP, **change)), change
    assert not STAMP.unnumbered().fits(replace(STAMP, size=0))
    assert not STAMP.unnumbered().fits(replace(STAMP, mtime_ns=STAMP.mtime_ns - 1))


@pytest.mark.parametrize("unit", TIME_UNITS_NS)
def test_a_time_that_was_cut_to_what_is_stored_fits(unit: int) -> None:
    cut = replace(STAMP, mtime_ns=STAMP.mtime_ns - STAMP.mtime_ns % unit)
    assert STAMP.fits(cut)
    assert cut.fits(cut)
    assert not cut.fits(replace(cut, mtime_ns=cut.mtime_ns + unit))


def test_numbers_that_do_not_last_do_not_count() -> None:
    known = STAMP.unnumbered()
    assert (known.dev, known.inode) == (NO_NUMBER, NO_NUMBER)
    other = replace(STAMP, dev=1, inode=2)
    assert known.fits(other)
    assert STAMP.renumbered(other)
    assert not STAMP.renumbered(STAMP)
    assert not STAMP.renumbered(replace(other, size=3))


def test_a_disks_numbers_last(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    assert pack_lasting(path.stat(), str(path)) == pack_stamp(path.stat())


def test_numbers_of_forgetful_file_systems_do_not(tmp_path: Path, refusing: RefusingFileSystem) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    for kind in stamps.FORGETFUL:
        stamps._remembered.clear()
        refusing.answers("type_of", lambda real, path, kind=kind: kind)
        assert not numbers_last(path.stat(), str(path))


def test_numbers_that_change_between_two_looks_do_not(tmp_path: Path, refusing: RefusingFileSystem) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    numbers = iter(range(1000, 2000))

    def changing(real: object, *args: object, **kwargs: object) -> os.stat_result:
        fields = list(os.lstat(path))
        fields[1] = next(numbers)
        return os.stat_result(fields)

    refusing.answers("stat", changing)
    refusing.refuses("type_of", errno.ENOSYS)
    assert not numbers_last(path.stat(), str(path))


def test_a_file_system_that_has_no_numbers(tmp_path: Path) -> None:
    fields = list(os.lstat(tmp_path))
    fields[1:3] = 0, 987654321
    assert not numbers_last(os.stat_result(fields), str(tmp_path))


def test_a_device_is_looked_at_anew_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps._remembered.clear()
    assert numbers_last(tmp_path.stat(), str(tmp_path))
    monkeypatch.setattr(stamps, "_look", lambda status, path: False)
    assert numbers_last(tmp_path.stat(), str(tmp_path))
    monkeypatch.setattr(stamps, "REMEMBERED_SECONDS", -time.monotonic())
    assert not numbers_last(tmp_path.stat(), str(tmp_path))
    stamps._remembered.clear()
