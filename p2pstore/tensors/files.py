"""Safetensors files with some tensors of an object: what they are to hold, and from where. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.manifest import Manifest
from p2pstore.tensors.checkpoint import Index
from p2pstore.tensors.header import Header, Tensor, make_header
from p2pstore.tensors.plan import Piece


class TensorFiles(NamedTuple):
    """Files that are made of pieces of an object: with some tensors, or as they are in it, whole or in part.

    ``shape`` tells of paths, sizes and modes, and its digest of all that makes the files what they are.

    ``heads`` are what each begins with, the index of several files being all head; ``pieces`` are what follows, their
    areas being the files' numbers. ``tensors`` is how many there are.
    """

    shape: Manifest
    heads: tuple[bytes, ...]
    pieces: tuple[Piece, ...]
    tensors: int


def tensor_files(
    manifest: Manifest,
    wanted: Sequence[tuple[int, Tensor]],
    headers: Mapping[int, Header],
    indexes: Mapping[int, Index],
) -> TensorFiles:
    """Files with the wanted tensors, which come with their files' numbers, as they lie.

    Each has the name and the metadata of the one that they come from, and an index tells of these tensors alone.
    Raises ``HeaderFault`` for a header that would be too long.
    """
    by_file: dict[int, list[Tensor]] = {}
    for number, tensor in wanted:
        by_file.setdefault(number, []).append(tensor)
    made = {number: make_header(tensors, headers[number].metadata) for number, tensors in by_file.items()}
    heads = {number: head for number, (head, _) in made.items()}
    for number, index in indexes.items():
        text = _index(index, by_file, manifest, number)
        if text:
            heads[number] = text
    numbers = sorted(heads)  # and so by path
    pieces: list[Piece] = []
    entries: list[FileEntry] = []
    columns = manifest.columns
    for area, number in enumerate(numbers):
        size = len(heads[number])
        if number in made:
            for tensor, place in zip(by_file[number], made[number][1], strict=True):
                _add(pieces, manifest.file_offsets[number] + tensor.begin, tensor.end - tensor.begin, area, place.begin)
                size = place.end
        entries.append(FileEntry(columns.paths[number], size, columns.modes[number], ()))
    shape = Manifest(manifest.kind, manifest.hash, manifest.chunk_size, entries)
    begins = tuple(heads[number] for number in numbers)
    return TensorFiles(identify(manifest, shape, begins, pieces), begins, tuple(pieces), len(wanted))


def identify(manifest: Manifest, shape: Manifest, heads: Sequence[bytes], pieces: Sequence[Piece]) -> Manifest:
    """``shape``, its digest that of all that makes such files of the object what they are. Returns it."""
    identity = hashlib.sha256(f"tensors of {manifest.digest}\n".encode())
    columns = shape.columns
    for path, mode, head in zip(columns.paths, columns.modes, heads, strict=True):
        identity.update(f"{path!r} {mode} {len(head)}\n".encode("utf-8", "surrogatepass"))
        identity.update(head)
    for piece in pieces:
        identity.update(repr(tuple(piece)).encode())
    vars(shape)["digest"] = identity.hexdigest()
    return shape


def _add(pieces: list[Piece], source: int, length: int, area: int, to: int) -> None:
    """Add a piece, joined to the one before where it continues that."""
    if not length:
        return
    before = pieces[-1] if pieces else None
    if before is not None and (before.end, before.area, before.to + before.row) == (source, area, to):
        pieces[-1] = before._replace(row=before.row + length, stride=before.row + length)
    else:
        pieces.append(Piece(source, length, length, 1, area, to))


def _index(index: Index, by_file: Mapping[int, Sequence[Tensor]], manifest: Manifest, number: int) -> bytes:
    """The index at ``number``, of the tensors that are wanted alone; empty where none of them is in it."""
    sizes = {(file, t.name): t.end - t.begin for file, tensors in by_file.items() for t in tensors}
    weights = {name: file for name, file in index.items() if (file, name) in sizes}
    if not weights:
        return b""
    paths = manifest.columns.paths
    top = len(paths[number].rpartition("/")[0])
    skip = top + 1 if top else 0
    found = {
        "metadata": {"total_size": sum(sizes[file, name] for name, file in weights.items())},
        "weight_map": {name: paths[file][skip:] for name, file in sorted(weights.items())},
    }
    return json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n"
