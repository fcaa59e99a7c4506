from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.files.stamps import FileStamp
from engine.memory.file_spans import FileSpan
from p2pstore.holding.copy_note import CopyNote, inodes, seal
from p2pstore.objects.source import scan


def test_it_comes_back_as_it_was() -> None:
    note = CopyNote(1.5, 2.5, pinned=True, wrote="ab", real="/a/\udcff", own_root=True)
    assert CopyNote.parse(note.to_text()) == note


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "{",
        "7",
        '{"since": "x"}',
        '{"wrote": 1}',
        '{"own_root": "yes"}',
        '{"pinned": 1}',
        '{"real": null}',
    ],
)
def test_of_what_is_none_of_ours_nothing_is_known(text: object) -> None:
    assert CopyNote.parse(text) == CopyNote()


def test_a_later_version_may_note_more() -> None:
    assert CopyNote.parse('{"pinned": true, "colour": "red"}') == CopyNote(pinned=True)


def test_what_takes_its_place_inherits() -> None:
    old = CopyNote(1.0, 5.0, pinned=True, wrote="a", real="/r", own_root=True)
    new = CopyNote(9.0)
    new.inherit(old)
    assert new == old
    written = CopyNote(wrote="b", real="/s")
    written.inherit(old)
    assert (written.wrote, written.real, written.own_root) == ("b", "/s", False)


def test_a_seal_breaks_when_a_file_is_written_touched_linked_or_replaced(tmp_path: Path) -> None:
    def sealed() -> str:
        return seal(scan(tmp_path / "d").files)

    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / "f"
    file.write_bytes(b"abc")
    seals = [sealed()]
    assert seals[0] == sealed()
    status = file.stat()
    file.write_bytes(b"abd")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    seals.append(sealed())
    file.chmod(0o600)
    seals.append(sealed())
    os.link(file, tmp_path / "link")
    seals.append(sealed())
    other = tmp_path / "other"
    other.write_bytes(b"abd")
    other.replace(file)
    seals.append(sealed())
    assert len(set(seals)) == len(seals)
    assert all(seals)


def test_the_number_of_the_device_may_change() -> None:
    stamps = [FileStamp(dev, 7, 3, 100, 200) for dev in (1, 2)]
    one, other = ([FileSpan("/f", 3, stamp)] for stamp in stamps)
    assert seal(one) == seal(other) != ""
    assert list(inodes(one)) != list(inodes(other))


@pytest.mark.parametrize("stamp", [None, FileStamp(1, 7, 3, 100, 200).unnumbered(), FileStamp(1, 7, 3, 100, 0)])
def test_what_cannot_be_known_again_has_no_seal(stamp: FileStamp | None) -> None:
    assert seal([FileSpan("/a", 3, FileStamp(1, 6, 3, 100, 200)), FileSpan("/f", 3, stamp)]) == ""
