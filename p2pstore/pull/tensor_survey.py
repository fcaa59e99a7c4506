"""What tensors an object has, found out from the first bytes of its files, which are brought and verified like any.

Chunks are brought whole. Those of headers that are small, as they are where chunks begin with the data, stay for the
get that follows; of others only so much as ``KEPT_BYTES``.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from p2pstore.errors import BadTensors, TensorNotFound
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.repeats import Repeats
from p2pstore.objects.steps import Steps
from p2pstore.pull.destination import Destination
from p2pstore.pull.pieces_destination import whole_chunks
from p2pstore.pull.pipeline import End, Pipeline
from p2pstore.pull.tensor_destination import TensorDestination
from p2pstore.tensors.checkpoint import (
    MAX_CONFIG_BYTES,
    MAX_INDEX_BYTES,
    Index,
    chosen,
    config_of,
    files_to_read,
    layout_of,
    parse_index,
)
from p2pstore.tensors.header import LENGTH_BYTES, Header, HeaderFault, Tensor, header_length, parse_header
from p2pstore.tensors.patterns import NamePatterns
from p2pstore.tensors.ranks import heads_of

BATCH_BYTES = 256 << 20
"""Of chunks that are brought at once for the headers in them."""

KEPT_BYTES = 256 << 20
"""Of chunks that stay in memory for the get that follows; what is more is brought again."""

SHOWN_NAMES = 3
"""Of the tensors that there are, where none is wanted."""


@dataclass
class Survey:
    """What is in an object: headers and indexes by their files' numbers, and the chunks that were brought for them."""

    name: str
    manifest: Manifest
    headers: dict[int, Header] = field(default_factory=dict)
    indexes: dict[int, Index] = field(default_factory=dict)
    configs: dict[int, bytes] = field(default_factory=dict)
    chunks: dict[int, memoryview] = field(default_factory=dict)

    def wanted(self, patterns: NamePatterns) -> list[tuple[int, Tensor]]:
        """The wanted tensors with their files' numbers, as they lie. Raises ``TensorNotFound`` or ``BadTensors``."""
        paths = self.manifest.columns.paths
        try:
            found = chosen(self.headers, self.indexes, paths, patterns)
        except HeaderFault as fault:
            raise self.fault(fault.path, fault) from None
        idle = patterns.idle(tensor.name for _, tensor in found)
        if idle or (not found and patterns.patterns):
            names = sorted({*self._names()})
            some = ", ".join(map(repr, names[:SHOWN_NAMES]))
            told = f"{len(names)} tensor{'' if len(names) == 1 else 's'}, such as {some}" if names else "none at all"
            raise TensorNotFound(name=self.name, patterns=", ".join(map(repr, idle)), found=told)
        return found

    def _names(self) -> Iterator[str]:
        for index in self.indexes.values():
            yield from index
        for header in self.headers.values():
            yield from (tensor.name for tensor in header.tensors)

    def heads(self, number: int) -> tuple[int, int]:
        """The attention heads of the model that a file belongs to; see ``heads_of``."""
        paths = self.manifest.columns.paths
        config = config_of(paths[number], self.configs, paths)
        return heads_of(self.configs[config]) if config is not None else (0, 0)

    def fault(self, path: str, fault: HeaderFault) -> BadTensors:
        """The error for what is wrong with a file."""
        what = f"{path!r} of {self.name}" if path else self.name
        return BadTensors(what=what, name=self.name, detail=str(fault))


async def survey(get: Pipeline, name: str, wanted: NamePatterns, within: str, *, models: bool) -> Survey:
    """Read the headers of an object that may have something wanted, and with ``models`` their descriptions.

    Raises ``UsageError`` where it has no safetensors files, ``BadTensors`` for what lies, and as ``Pipeline.bring``.
    """
    manifest = get.manifest
    paths, sizes = manifest.columns.paths, manifest.columns.sizes
    layout = await get.in_thread(layout_of, paths, within)
    found = Survey(name, manifest)
    configs = [n for n in layout.configs if 0 < sizes[n] <= MAX_CONFIG_BYTES] if models else []
    for number in layout.indexes:
        if sizes[number] > MAX_INDEX_BYTES:
            detail = f"it has {sizes[number]} bytes; {MAX_INDEX_BYTES} are allowed"
            raise found.fault(paths[number], HeaderFault(detail))
    whole = [(number, sizes[number]) for number in (*layout.indexes, *configs)]
    for number, data in (await _starts(get, found, whole)).items():
        if number in layout.indexes:
            found.indexes[number] = await get.in_thread(_index, found, number, data)
        else:
            found.configs[number] = data
    for batch in _batches(manifest, files_to_read(layout, paths, found.indexes, wanted)):
        await _read_headers(get, found, batch)
    return found


async def _read_headers(get: Pipeline, found: Survey, files: Sequence[int]) -> None:
    """Read the headers of some files, of which the chunks in them stay if there is room."""
    sizes = found.manifest.columns.sizes
    before = set(found.chunks)
    starts = await _starts(get, found, [(number, min(LENGTH_BYTES, sizes[number])) for number in files])
    lengths = [(number, _checked(found, number, starts[number])) for number in files]
    for number, data in (await _starts(get, found, lengths)).items():
        found.headers[number] = await get.in_thread(_header, found, number, data)
    if sum(map(len, found.chunks.values())) > KEPT_BYTES:
        for number in found.chunks.keys() - before:
            del found.chunks[number]


def _checked(found: Survey, number: int, start: bytes) -> int:
    try:
        return header_length(start, found.manifest.columns.sizes[number])
    except HeaderFault as fault:
        raise found.fault(found.manifest.columns.paths[number], fault) from None


def _header(found: Survey, number: int, data: bytes) -> Header:
    try:
        return parse_header(data, found.manifest.columns.sizes[number])
    except HeaderFault as fault:
        raise found.fault(found.manifest.columns.paths[number], fault) from None


def _index(found: Survey, number: int, data: bytes) -> Index:
    paths = found.manifest.columns.paths
    try:
        return parse_index(data, paths[number], paths)
    except HeaderFault as fault:
        raise found.fault(paths[number], fault) from None


def _batches(manifest: Manifest, files: Iterable[int]) -> Iterator[list[int]]:
    """Files whose first chunks are brought together."""
    batch: list[int] = []
    size = 0
    for number in files:
        first = manifest.lengths[manifest.first_chunks[number]] if manifest.columns.sizes[number] else 0
        if batch and size + first > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += first
    if batch:
        yield batch


async def _starts(get: Pipeline, found: Survey, lengths: Sequence[tuple[int, int]]) -> dict[int, bytes]:
    """The first bytes of files, so many of each."""
    manifest = found.manifest
    needed = {n: manifest.chunks_of(manifest.file_offsets[n], length) for n, length in lengths if length}
    missing = sorted({chunk for chunks in needed.values() for chunk in chunks} - found.chunks.keys())
    if missing:
        await get.bring(ChunksEnd(missing, found.chunks))

    def start(number: int, length: int) -> bytes:
        return b"".join(found.chunks[chunk] for chunk in needed.get(number, ()))[:length]

    return {number: start(number, length) for number, length in lengths}


D = TypeVar("D", bound=Destination)


class WantedEnd(End[D]):
    """An end that wants some chunks alone."""

    def repeats(self, manifest: Manifest) -> Repeats:  # noqa: ARG002 - as the base has it
        """See ``End.repeats``: none, since the chunk that another one equals is mostly not wanted."""
        return Repeats()


class ChunksEnd(WantedEnd[TensorDestination]):
    """Whole chunks, to be put into a mapping."""

    def __init__(self, numbers: Sequence[int], chunks: dict[int, memoryview]) -> None:
        self._numbers = numbers
        self._chunks = chunks
        self._made: Mapping[int, mmap.mmap] = {}

    def make(
        self,
        manifest: Manifest,
        cancelled: threading.Event,  # noqa: ARG002 - it is quick
        steps: Steps,  # noqa: ARG002 - likewise
    ) -> TensorDestination:
        """See ``End.make``."""
        pieces = whole_chunks(manifest, self._numbers)
        # Mapped, not allocated: what is let go of must be the system's again at once, and malloc keeps tens of MiB.
        made = [mmap.mmap(-1, piece.row) for piece in pieces]
        self._made = dict(zip(self._numbers, made, strict=True))
        return TensorDestination(manifest, pieces, [memoryview(each) for each in made])

    async def hold(self, get: Pipeline, spans: Sequence[Any]) -> None:  # noqa: ARG002 - as the base has it
        """See ``End.hold``."""
        self._chunks.update((number, memoryview(data).toreadonly()) for number, data in self._made.items())
        self._made = {}  # who takes a chunk out of the mapping lets go of its memory, however long the pull is known
