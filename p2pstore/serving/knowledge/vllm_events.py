"""vLLM's KV events, as they stand in a message: which blocks an engine stored and removed.

A message is msgpack: ``[time, events, data parallel rank]``. An event is a list that begins with its name, up to vLLM
0.25 or so, and a map with ``type`` later; fields that are not known here are left alone. SGLang and others publish the
older form.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

MAX_MESSAGE_BYTES = 64 << 20
"""A larger one is no batch of an engine's."""

GPU = "GPU"
"""The medium of blocks of which no other is said."""


class BadEvents(Exception):
    """What came is no batch of events."""


@dataclass(frozen=True, slots=True)
class BlocksStored:
    """An engine has these blocks from now on, one behind the other; ``parent`` is the hash of what is before them."""

    hashes: Sequence[Hashable]
    parent: Hashable | None
    tokens: Sequence[int]
    size: int
    """Tokens of a block."""
    medium: str = GPU
    plain: bool = True
    """Whether tokens alone make a block what it is: not an adapter, an image or a salt."""
    group: int = 0
    """Of the layers, where a model has several kinds."""


@dataclass(frozen=True, slots=True)
class BlocksRemoved:
    """An engine no longer has these blocks, in one medium."""

    hashes: Sequence[Hashable]
    medium: str = GPU
    group: int = 0


@dataclass(frozen=True, slots=True)
class Cleared:
    """An engine has no blocks any more."""


EngineEvent = BlocksStored | BlocksRemoved | Cleared

_STORED = ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name",
           "extra_keys", "group_idx")  # fmt: skip
_REMOVED = ("block_hashes", "medium", "group_idx")
"""Fields of the older form, in their order."""


def decode(payload: bytes) -> list[EngineEvent]:
    """The events of a message; kinds that are not known are left out. Raises ``BadEvents``."""
    import msgpack  # noqa: PLC0415 - an extra

    if len(payload) > MAX_MESSAGE_BYTES:
        raise BadEvents(f"a message of {len(payload)} bytes")
    try:
        batch = msgpack.unpackb(payload, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:  # a TypeError: a list is the key of a map
        raise BadEvents(f"no msgpack: {error}") from None
    events = batch.get("events") if isinstance(batch, Mapping) else batch[1] if _is_list(batch, 2) else None
    if not isinstance(events, list):
        raise BadEvents("no batch of events")
    return [event for each in events if (event := _event(each)) is not None]


def _event(document: Any) -> EngineEvent | None:
    if isinstance(document, Mapping):
        name, fields = document.get("type"), document
    elif _is_list(document, 1):
        name = document[0]
        fields = dict(zip(_STORED if name == "BlockStored" else _REMOVED, document[1:], strict=False))
    else:
        raise BadEvents("an event is neither a list nor a map")
    if name == "AllBlocksCleared":
        return Cleared()
    if name not in ("BlockStored", "BlockRemoved"):  # not a set: what is no name may have no hash
        return None
    hashes = fields.get("block_hashes")
    if not isinstance(hashes, list) or not all(isinstance(each, (int, bytes)) for each in hashes):
        raise BadEvents(f"{name} has no hashes")
    medium, group = str(fields.get("medium") or GPU), fields.get("group_idx") or 0
    if type(group) is not int:
        raise BadEvents(f"{name} has a group that is no number")
    if name == "BlockRemoved":
        return BlocksRemoved(hashes, medium, group)
    tokens, size = fields.get("token_ids"), fields.get("block_size")
    if not _are_tokens(tokens) or type(size) is not int or size < 1 or len(tokens) != size * len(hashes):
        raise BadEvents("BlockStored has no tokens for its blocks")
    parent, extra = fields.get("parent_block_hash"), fields.get("extra_keys") or []
    if not isinstance(parent, (int, bytes, type(None))) or not isinstance(extra, list):
        raise BadEvents("BlockStored has a parent that is no hash, or extra keys that are no list")
    adapter = fields.get("lora_name") is not None or fields.get("lora_id") is not None
    plain = not adapter and not any(extra)
    return BlocksStored(hashes, parent, tokens, size, medium, plain, group)


def _is_list(document: Any, least: int) -> bool:
    return isinstance(document, list) and len(document) >= least


def _are_tokens(tokens: Any) -> TypeGuard[list[int]]:
    return isinstance(tokens, list) and all(type(token) is int for token in tokens)
