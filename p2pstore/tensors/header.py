"""The header of a safetensors file: which tensors are in it, and where. Pure, and nothing in it is believed.

A file is eight bytes that tell the header's length (little-endian), the header, and the tensors' bytes without a gap.
The header is JSON, and may end with spaces::

    {"__metadata__":{"format":"pt"},"lm_head.weight":{"dtype":"BF16","shape":[32000,4096],"data_offsets":[0,262144000]}}

Source: https://github.com/huggingface/safetensors, README.md and safetensors/src/tensor.rs, release 0.8. What passes
here passes there, too; names that come twice, which it takes, do not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeGuard

from p2pstore.tensors.dtypes import DTYPES

LENGTH_BYTES = 8
"""Before the header, that tell its length."""

MAX_HEADER_BYTES = 100_000_000
"""The limit of safetensors itself."""

MAX_DIMENSIONS = 64
"""NumPy's limit."""

MAX_TENSOR_BITS = 1 << 63
"""A shape that says more, its zeros left aside, is one that NumPy and PyTorch cannot count."""

METADATA = "__metadata__"
_MAX_DIGITS = 19
"""Of a whole number below 2^63."""
_SHOWN = 80
"""Characters of a tensor's name in a sentence."""


class HeaderFault(Exception):
    """What is wrong with a header, or with an index of several, in a few words; ``path`` is the file's, where known."""

    def __init__(self, detail: str, *, path: str = "") -> None:
        super().__init__(detail)
        self.path = path


class Tensor(NamedTuple):
    """A tensor: its type by safetensors' name, and its bytes' place in the file, from ``begin`` to before ``end``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """What a file says of itself. ``length`` is where the tensors' bytes begin; ``tensors`` are as they lie there."""

    length: int
    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str]


def header_length(start: bytes, size: int) -> int:
    """Where the tensors' bytes begin in a file of ``size`` bytes, of which ``start`` has the first eight.

    Raises ``HeaderFault`` where that cannot be.
    """
    if size < LENGTH_BYTES:
        raise HeaderFault(f"it has {size} bytes, and a header's length alone takes {LENGTH_BYTES}")
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise HeaderFault(f"its header is said to have {length} bytes; {MAX_HEADER_BYTES} are allowed")
    if length > size - LENGTH_BYTES:
        raise HeaderFault(f"its header is said to have {length} bytes, and the file has {size}")
    return LENGTH_BYTES + length


def parse_header(data: bytes, size: int) -> Header:
    """The header of a file of ``size`` bytes, of which ``data`` are the first, the whole header among them.

    Raises ``HeaderFault`` unless the tensors fill the rest of the file: each of the size that its type and shape make,
    without gap and overlap.
    """
    length = header_length(data, size)
    tensors, metadata = _entries(data[LENGTH_BYTES:length])
    found = sorted((_tensor(name, entry, length) for name, entry in tensors.items()), key=lambda t: (t.begin, t.end))
    at = length
    for tensor in found:
        if tensor.begin != at:
            what = "overlaps the one before it" if tensor.begin < at else "leaves a gap before it"
            raise HeaderFault(f"tensor {_shown(tensor.name)} {what}")
        at = tensor.end
    if at != size:
        raise HeaderFault(f"its tensors end at byte {at}, and the file has {size}")
    return Header(length, tuple(found), metadata)


def make_header(tensors: Iterable[Tensor], metadata: Mapping[str, str]) -> tuple[bytes, tuple[Tensor, ...]]:
    """A header for these tensors in this order, length and all, and their places in its file.

    As safetensors writes it, it is filled up with spaces to a multiple of eight.
    """
    entries: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    at = 0
    wanted = list(tensors)
    for tensor in wanted:
        end = at + tensor.end - tensor.begin
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    if len(text) > MAX_HEADER_BYTES:
        raise HeaderFault(f"its header would have {len(text)} bytes; {MAX_HEADER_BYTES} are allowed")
    moved, at = [], LENGTH_BYTES + len(text)
    for tensor in wanted:
        end = at + tensor.end - tensor.begin
        moved.append(tensor._replace(begin=at, end=end))
        at = end
    return len(text).to_bytes(LENGTH_BYTES, "little") + text, tuple(moved)


def read_json(text: bytes) -> Any:
    """JSON in which no key comes twice in an object, and every whole number is one from 0 to below 2^63.

    Raises ``HeaderFault``.
    """
    try:
        found = json.loads(text.decode(), object_pairs_hook=_once, parse_int=_whole, parse_constant=_refuse_constant)
        if b"\\u" in text:  # a lone surrogate is no character
            json.dumps(found, ensure_ascii=False).encode()
    except HeaderFault:
        raise
    except UnicodeError:
        raise HeaderFault("it is not UTF-8") from None
    except RecursionError:
        raise HeaderFault("it is nested too deeply") from None
    except ValueError as error:
        raise HeaderFault(f"it is no JSON: {error}") from None
    return found


def _entries(text: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors' entries as they are, and the metadata."""
    if not text.startswith(b"{"):
        raise HeaderFault("its header does not begin with '{'")
    entries = read_json(text)
    if not isinstance(entries, dict):  # it begins like one
        raise HeaderFault("its header is no object")
    metadata = entries.pop(METADATA, None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderFault(f"its {METADATA} is not a table of texts")
    return entries, metadata


def _tensor(name: str, entry: Any, length: int) -> Tensor:
    """One entry, checked by itself."""
    shown = _shown(name)
    if not isinstance(entry, dict):
        raise HeaderFault(f"tensor {shown} is not described by an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise HeaderFault(f"tensor {shown} has a type that is not known, {str(dtype)[:_SHOWN]!r}")
    if not _are_whole(shape) or len(shape) > MAX_DIMENSIONS:
        raise HeaderFault(f"tensor {shown} has a shape that is no list of up to {MAX_DIMENSIONS} whole numbers")
    if not _are_whole(offsets) or len(offsets) != 2:
        raise HeaderFault(f"tensor {shown} has data_offsets that are not two whole numbers")
    begin, end = offsets
    bits, nonzero = DTYPES[dtype].bits, DTYPES[dtype].bits
    for extent in shape:
        bits *= extent
        nonzero *= max(extent, 1)
        if nonzero >= MAX_TENSOR_BITS:
            raise HeaderFault(f"tensor {shown} has a shape of more numbers than can be counted")
    if bits % 8:
        raise HeaderFault(f"tensor {shown} does not end with a byte")
    if end - begin != bits // 8:
        raise HeaderFault(f"tensor {shown} has {end - begin} bytes, and its type and shape make {bits // 8}")
    return Tensor(name, dtype, tuple(shape), length + begin, length + end)


def _are_whole(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int for each in value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise HeaderFault(f"the key {_shown(twice)} comes twice in it")
    return found


def _whole(text: str) -> int | float:
    """A whole number as it may stand for a size or a place; any other is told apart by its type."""
    return int(text) if text.isdigit() and len(text) <= _MAX_DIGITS and int(text) < 1 << 63 else -1.0


def _refuse_constant(text: str) -> NoReturn:
    raise HeaderFault(f"it is no JSON: {text}")


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")
