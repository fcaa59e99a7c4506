"""How a file of an origin is cut for reading, and what its parts are called in the cluster. Pure.

A file is read in *sections*, each by one node, and each an object of its own as soon as it has come: so others have it
before the file is whole, and what came outlives a node's end. Names are made of where the file is and of its version;
where it is stands there as a hash, since an address may tell more than the cluster need know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from p2pstore.objects.manifest import choose_chunk_size
from p2pstore.origins.source import OriginFile

ROOT = "origins"
"""What the names of such objects begin with."""

MIN_SECTION_BYTES = 16 << 20
MAX_SECTION_BYTES = 1 << 30
"""Small enough for many nodes to have one each; large enough to cost the origin few requests."""

MAX_SECTIONS = 256
"""Of a file, unless they would be larger than that: each is a record in the metadata store while it is read."""

KEY_DIGITS = 24
"""Hexadecimal digits of each hash in a name."""


class Section(NamedTuple):
    """The bytes from ``begin`` to ``end``, and the object that they are."""

    name: str
    begin: int
    end: int


class Plan(NamedTuple):
    """How a file is read. ``above`` is what the names of all of its versions begin with."""

    above: str
    whole: str
    sections: Sequence[Section]
    chunk_size: int
    """Of all objects that it is made of; each section but the last has whole chunks."""

    @property
    def cut(self) -> bool:
        """Whether it has several sections; else the one is the whole."""
        return len(self.sections) > 1


def plan(file: OriginFile) -> Plan:
    """How a file that is not empty is read: the same for every node."""
    above = f"{ROOT}/{short_hash(file.name or file.place)}/"
    stem = f"{above}{short_hash([file.version, file.size])}"
    whole = file.name or f"{stem}/whole"
    size = section_bytes(file.size)
    if not file.ranges or size >= file.size:
        return Plan(above, whole, [Section(whole, 0, file.size)], choose_chunk_size(file.size))
    begins = range(0, file.size, size)
    sections = [Section(f"{stem}/{number}", at, min(at + size, file.size)) for number, at in enumerate(begins)]
    return Plan(above, whole, sections, choose_chunk_size(file.size))


def section_bytes(size: int) -> int:
    """How long the sections of a file are: a power of two, and a multiple of its chunks' size."""
    section = MIN_SECTION_BYTES
    while section < MAX_SECTION_BYTES and section * MAX_SECTIONS < size:
        section *= 2
    return max(section, choose_chunk_size(size))


def order(node: str, sections: Sequence[Section]) -> list[Section]:
    """In which order a node looks at them: each begins elsewhere, so that nodes that start together part the work."""
    first = int.from_bytes(hashlib.sha256(node.encode()).digest()[:8], "big") % len(sections)
    return [*sections[first:], *sections[:first]]


def revision(files: Sequence[OriginFile]) -> str:
    """What stands for the content of all of these, as far as their origin tells."""
    return short_hash(sorted([file.path, file.size, file.version] for file in files))


def short_hash(value: object) -> str:
    """Of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:KEY_DIGITS]
