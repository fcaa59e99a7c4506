"""What of an object can be served of some of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import SourceChanged
from engine.files.stamps import FileStamp
from engine.memory.file_spans import FileSpan
from p2pstore.holding.part_copy import PartCopy
from tests.p2pstore.samples import content, manifest_of

FILES = {"a": content(30), "b": content(25, 1), "c": b"", "d": content(10, 2)}
MANIFEST = manifest_of(FILES, 10)


def test_it_has_the_chunks_of_its_files_and_reads_them(tmp_path: Path) -> None:
    path, lost = tmp_path / "b", list[str]()
    path.write_bytes(FILES["b"])
    span = FileSpan(str(path), 25, FileStamp.of(path.stat()))
    part = PartCopy(MANIFEST, [1], [span], lost.append)
    assert list(part.verified) == [3, 4, 5]

    def servable(offset: int, length: int) -> bool:
        return part.verified.has_all(MANIFEST.chunks_of(offset, length))

    buffer = part.partial_buffer(servable)
    assert buffer.length == MANIFEST.size
    assert buffer.ready(30, 25)
    assert not buffer.ready(29, 2)
    assert not buffer.ready(0, 10)
    found = bytearray(25)
    buffer.read_into(30, memoryview(found))
    assert found == FILES["b"]
    assert part.fault() == ""
    path.write_bytes(content(24, 3))
    assert part.fault() == f"{path}: its size went from 25 to 24 bytes"
    with pytest.raises(SourceChanged):
        buffer.read_into(30, memoryview(found))
    assert len(lost) == 1
    assert str(path) in lost[0]
    buffer.close()
