"""What of an object is on this node already is found, wherever it is held."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import SourceChanged
from p2pstore.holding.catalog import Holding
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.reuse import LocalChunks
from tests.p2pstore.holding.held import FILES, Held, held, root, scanned
from tests.p2pstore.pull.destinations import feed
from tests.p2pstore.samples import MIB, content, manifest_of, record_of

__all__ = ["held", "root"]


class Collect:
    """A sink of three bytes at a time."""

    def __init__(self) -> None:
        self.data = b""
        self._room = bytearray(3)

    def buffer(self, remaining: int) -> memoryview:
        return memoryview(self._room)[: min(3, remaining)]

    def filled(self, count: int) -> None:
        self.data += self._room[:count]


async def test_equal_chunks_are_found_in_any_holding(held: Held, root: Path, tmp_path: Path) -> None:
    await held.holdings.add(*scanned(root))
    newer = manifest_of({"a": FILES["a"], "new": content(MIB, 7), "renamed": FILES["b/c"]}, MIB)
    local = LocalChunks(held.holdings, newer)
    assert local
    assert [local.has(c) for c in newer.all_chunks()] == [True, True, False, True]
    for chunk in newer.all_chunks():
        if local.has(chunk):
            sink = Collect() if chunk.length < MIB else None
            if sink:
                local.read(chunk, sink)
                assert sink.data == (FILES["a"][MIB:] if chunk.number == 1 else FILES["b/c"])


async def test_other_hashes_and_partial_replicas(held: Held, root: Path, tmp_path: Path) -> None:
    tree = scan(root)
    other = hash_tree(tree, hash_name="blake3")
    await held.holdings.add(Holding(record_of("n", other), "gold", root, tree.files), other)
    assert not LocalChunks(held.holdings, hash_tree(tree, hash_name="xxh3_128"))
    data = content(2 * MIB, 5)
    partial = manifest_of({"": data}, MIB)
    destination = FileDestination(tmp_path / "dest", partial, "n")
    await held.holdings.serve_partial(destination)
    feed(destination, range(1, 2), data[MIB:])
    local = LocalChunks(held.holdings, partial)
    assert [local.has(chunk) for chunk in partial.all_chunks()] == [False, True], "what another get has, or a part"
    newer = manifest_of({"x": data, "y": b"1"}, MIB)
    assert [LocalChunks(held.holdings, newer).has(c) for c in newer.all_chunks()] == [False, True, False]
    destination.abort()


async def test_reuse_of_what_is_gone(held: Held, root: Path) -> None:
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    local = LocalChunks(held.holdings, manifest)
    await held.holdings.remove(holding)
    with pytest.raises(SourceChanged):
        local.read(manifest.chunk(0), Collect())
