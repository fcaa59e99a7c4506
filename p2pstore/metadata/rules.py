"""What both stores agree on: how a key becomes bytes, and which transactions make sense."""

from __future__ import annotations

from collections.abc import Sequence

from p2pstore.errors import UsageError
from p2pstore.metadata.store import MAX_OPERATIONS, Condition, Operation, Put


def encode_key(key: str) -> bytes:
    """A key as etcd stores it: UTF-8; foreign bytes that ``decode_key`` escaped become themselves again."""
    return key.encode("utf-8", "surrogateescape")


def decode_key(key: bytes) -> str:
    """A key as text; bytes that are no UTF-8 are kept as lone surrogates (Python's ``surrogateescape``)."""
    return key.decode("utf-8", "surrogateescape")


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all those that begin with ``prefix``; a zero byte, etcd's "no end", where there is none.

    Source: etcd's documentation of ``range_end``.
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


def check_reads(reads: Sequence[object]) -> None:
    """Raises ``UsageError`` for more reads than etcd takes in one call."""
    if len(reads) > MAX_OPERATIONS:
        raise UsageError(detail=f"one call reads at most {MAX_OPERATIONS} keys or prefixes")


def check_transaction(operations: Sequence[Operation], conditions: Sequence[Condition]) -> None:
    """Raises ``UsageError`` for what etcd would refuse: too many parts, an empty key, a key that is written twice."""
    if max(len(operations), len(conditions)) > MAX_OPERATIONS:
        raise UsageError(detail=f"a transaction takes at most {MAX_OPERATIONS} operations and conditions")
    keys = [op.key for op in operations]
    if not all(keys):
        raise UsageError(detail="a metadata key may not be empty")
    puts = {op.key for op in operations if isinstance(op, Put)}
    if any(keys.count(key) > 1 for key in puts):
        raise UsageError(detail="a transaction may write a key only once")
