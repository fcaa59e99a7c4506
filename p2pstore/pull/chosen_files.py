"""What a get of some files of an object, or of a range of one, is to write, and from where. Pure."""

from __future__ import annotations

from dataclasses import replace

from p2pstore.objects.chosen import Choice, choose
from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.manifest import Manifest
from p2pstore.tensors.files import TensorFiles, identify
from p2pstore.tensors.plan import Piece


def chosen_files(manifest: Manifest, choice: Choice, name: str) -> TensorFiles:
    """The files that are wanted, each a piece of the object; none begins with anything of ours.

    The shape has the digests of chunks of those that are wanted whole.

    Raises ``NotInObject`` and ``UsageError`` as ``choose``.
    """
    found = choose(manifest, choice, name)
    columns, offsets = manifest.columns, manifest.file_offsets
    pieces: list[Piece] = []
    entries: list[FileEntry] = []
    for area, (number, path) in enumerate(zip(found.numbers, found.paths, strict=True)):
        entry = columns[number]
        begin, end = 0, entry.size
        if choice.range is not None:
            begin, end = choice.range.within(end)
        if begin < end:
            pieces.append(Piece(offsets[number] + begin, end - begin, end - begin, 1, area, 0))
        whole = end - begin == entry.size
        entries.append(replace(entry, path=path) if whole else FileEntry(path, end - begin, entry.mode, ()))
    shape = Manifest(found.kind, manifest.hash, manifest.chunk_size, entries, found.directories)
    heads = (b"",) * len(entries)
    return TensorFiles(identify(manifest, shape, heads, pieces), heads, tuple(pieces), 0)
