"""That a part of which nobody reads is looked at, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.files.stamps import FileStamp
from engine.memory.file_spans import FileSpan
from p2pstore.holding.part_copy import PartCopy
from p2pstore.holding.part_watcher import PartWatcher
from tests.p2pstore.samples import content, manifest_of

MANIFEST = manifest_of({"a": content(30), "b": content(25, 1)}, 10)


class Copies:
    """What a node serves in part."""

    def __init__(self, *parts: tuple[str, PartCopy]) -> None:
        self.served = list(parts)
        self.lost: list[tuple[str, str]] = []

    async def forget_whole(self) -> None:
        """All are parts."""

    def all(self) -> list[tuple[str, PartCopy]]:
        return list(self.served)

    def lose(self, digest: str, reason: str) -> None:
        self.lost.append((digest, reason))


async def test_what_changed_is_served_no_more_and_the_rest_is(tmp_path: Path) -> None:
    parts = []
    for name in ("kept", "changed", "gone"):
        path = tmp_path / name
        path.write_bytes(content(25, 1))
        span = FileSpan(str(path), 25, FileStamp.of(path.stat()))
        parts.append((name, PartCopy(MANIFEST, [1], [span], lambda reason: None)))
    copies: Any = Copies(*parts)
    watcher = PartWatcher(copies)
    await watcher.look()
    assert copies.lost == []
    (tmp_path / "changed").write_bytes(b"x")
    (tmp_path / "gone").unlink()
    await watcher.look()
    assert [digest for digest, _ in copies.lost] == ["changed", "gone"]
    assert copies.lost[0][1] == f"{tmp_path / 'changed'}: its size went from 25 to 1 bytes"
