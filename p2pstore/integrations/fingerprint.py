"""What must be the same in two engines for one to use the other's KV cache, as a part of the keys in the pool.

An engine's own keys name the model by the last part of its path. Other weights under that name, or weights in another
type, would be found, and give wrong tokens. So a fingerprint stands before it: parts that are joined by ``@``, as the
keys' own are, that say what differs where two engines do not find each other's blocks.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import xxhash

from engine.files.system import system
from p2pstore.errors import BadSource, PathNotFound, StorageError
from p2pstore.objects.file_system import words

WEIGHTS = ("/*.safetensors", "/*.bin", "/*.pt", "/*.pth", "/*.gguf")
INDEXES = ("/*.safetensors.index.json", "/*.bin.index.json")
"""Of the second, each says which of the first belong to the checkpoint."""

DECIDES = (
    *WEIGHTS, *INDEXES, "/config.json", "/hf_quant_config.json", "/quantize_config.json", "/quant_config.json",
)  # fmt: skip
"""Files of a checkpoint on which its KV cache depends. Others, such as a README, may differ."""

MAX_INDEX_BYTES = 64 << 20
"""Of an index that is read; the largest known ones have some megabytes."""

DIGEST_DIGITS = 16
"""Hexadecimal digits of a checkpoint's digest that stand in a fingerprint."""

SAMPLE_BYTES = 16 << 10
"""Read at each place that is looked at."""

SAMPLE_EVERY = 8 << 20
"""Bytes of a file from one such place to the next."""

MIN_SAMPLES = 64
"""Such places of a file, however small it is."""

_PARTS = re.compile(r"(w[0-9a-z]+)@([\w.+-]+)@block(\d+)@([\w.-]+)-seed([^@\s]*)")


class Fingerprint(NamedTuple):
    """Which weights, in which type, in blocks of so many tokens, and how tokens become a hash."""

    weights: str
    dtype: str
    block_size: int
    hash_name: str = "sha256"
    seed: str = ""

    @property
    def text(self) -> str:
        """As it stands in keys."""
        return f"{self.weights}@{self.dtype}@block{self.block_size}@{self.hash_name}-seed{self.seed}"


def parse(text: str) -> Fingerprint | None:
    """The fingerprint that a text begins with, or None."""
    found = _PARTS.match(text)
    return None if found is None else Fingerprint(found[1], found[2], int(found[3]), found[4], found[5])


def of_digest(digest: str) -> str:
    """How a checkpoint is called whose manifest has this digest, all of it hashed."""
    return f"w{digest.rpartition(':')[2][:DIGEST_DIGITS]}"


def sampled(root: Path) -> str:
    """How a checkpoint is called that was looked at in many places, and not hashed: ``ws`` and digits.

    A five-hundredth of a large file is read. Training changes nearly all weights; a change that leaves all these places
    alone is not seen. Raises ``PathNotFound``, ``BadSource``, ``StorageError``.
    """
    found = xxhash.xxh3_128()
    files = list(_files(root))
    if not files:
        raise BadSource(path=root, detail="it has neither weights nor a config.json")
    for path in files:
        try:
            with path.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                found.update(f"{path.relative_to(root)}\n{size}\n".encode())
                for at in _places(size):
                    found.update(system.pread(stream.fileno(), SAMPLE_BYTES, at))
        except OSError as error:
            raise StorageError(path=path, detail=words(error)) from None
    return f"ws{found.hexdigest()[:DIGEST_DIGITS]}"


def doubts(root: Path) -> list[str]:
    """Why a checkpoint's fingerprint may not tell its weights apart: each a sentence. Raises as ``sampled``."""
    there = [path.name for path in _files(root)]
    if not any(_fits(name, WEIGHTS) for name in there):
        kinds = ", ".join(each.removeprefix("/") for each in WEIGHTS)
        return [f"{root} has no weights at its top ({kinds}): engines with other weights would have the same prefix"]
    found = []
    for index in (name for name in there if _fits(name, INDEXES)):
        missing = sorted(_indexed(root / index) - set(there))
        if missing:
            count = "1 file that is" if len(missing) == 1 else f"{len(missing):,} files that are"
            first = missing[0] if len(missing) == 1 else f"{missing[0]} and others"
            found.append(f"{root / index} names {count} not there ({first}): the prefix is not the whole checkpoint's")
    return found


def _indexed(path: Path) -> set[str]:
    """The files that an index names, as far as it can be read."""
    try:
        with path.open("rb") as stream:
            said = json.loads(stream.read(MAX_INDEX_BYTES))["weight_map"].values()
        return {name for name in said if isinstance(name, str) and "/" not in name}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(Path(name).match(each.removeprefix("/")) for each in patterns)


def _files(root: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        raise PathNotFound(path=root) from None
    except OSError as error:
        raise StorageError(path=root, detail=words(error)) from None
    for name in names:
        path = root / name
        if _fits(name, DECIDES) and stat.S_ISREG(path.stat().st_mode):
            yield path


def _places(size: int) -> Iterator[int]:
    """Where to look: at the beginning, at the end, and evenly between."""
    last = max(0, size - SAMPLE_BYTES)
    count = max(MIN_SAMPLES, size // SAMPLE_EVERY)
    seen = -1
    for number in range(count + 1):
        at = last * number // count
        if at > seen:
            yield at
            seen = at
