"""A window into a copy: what it brings is the copy's at once, and nothing else is wanted."""

from __future__ import annotations

from pathlib import Path

from p2pstore.hub.window import Have, Window
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from p2pstore.pull.file_destination import FileDestination
from tests.p2pstore.samples import MIB, content, write_tree


def test_what_comes_is_the_copys(tmp_path: Path) -> None:
    data = content(4 * MIB)
    write_tree(tmp_path / "tree", {"f": data})
    manifest = hash_tree(scan(tmp_path / "tree"), hash_name="xxh3_128", chunk_size=MIB).prepare()
    whole = FileDestination(tmp_path / "copy", manifest, "n")
    landed: list[int] = []
    try:
        have = Have(whole.verified)
        window = Window(whole, [1, 3], have, landed.append)
        assert list(window.verified.missing()) == [1, 3]
        assert window.left_out == 2 * MIB
        assert window.manifest is manifest
        scratch = memoryview(bytearray(MIB))
        sink = window.sink(range(1, 2), scratch)
        sink.buffer(MIB)[:] = data[MIB : 2 * MIB]
        sink.filled(MIB)
        sink.close()
        window.keep(range(1, 2))
        window.verified.add(1)
        window.verified.add(1)
        assert landed == [1]
        assert list(whole.verified) == [1]
        assert not window.verified.full
        window.verified.update([3])
        assert window.verified.full
        assert landed == [1, 3]
        assert window.abort()
        assert window.finish() == ()
        assert whole.matches(manifest.chunk(1), scratch)
    finally:
        whole.abort()
