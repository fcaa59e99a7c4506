"""What is measured: the operation, and how large, how many and by how many at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from engine.errors import UsageError

MAX_BLOCK_SIZE = 1 << 30
"""Bytes of one request."""

MAX_BATCH_SIZE = 1 << 16
"""Requests in one batch."""

MAX_THREADS = 128
"""Threads of the initiator."""

MAX_CASES = 1000
"""Cases of one sweep."""


class Operation(Enum):
    """What the initiator does; mixed is a batch of reads and a batch of writes in turn."""

    READ = "read"
    WRITE = "write"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class Case:
    """``threads`` threads, each with batches of ``batch_size`` requests of ``block_size`` bytes, one batch at a time.

    Each thread has a part of the memory for itself, at both ends, and a place there for each request of its batch.
    """

    operation: Operation
    block_size: int
    batch_size: int
    threads: int

    @property
    def batch_bytes(self) -> int:
        """Bytes that one batch moves."""
        return self.block_size * self.batch_size

    @property
    def footprint(self) -> int:
        """Bytes of memory that it uses at each end."""
        return self.batch_bytes * self.threads

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return {
            "operation": self.operation.value,
            "block_size": self.block_size,
            "batch_size": self.batch_size,
            "threads": self.threads,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Case:
        """What ``to_json`` made."""
        return cls(Operation(data["operation"]), data["block_size"], data["batch_size"], data["threads"])


def sweep(
    operations: Iterable[Operation],
    block_sizes: Iterable[int],
    batch_sizes: Iterable[int],
    threads: Iterable[int],
) -> list[Case]:
    """Every combination once, operations outermost and threads innermost. Raises ``UsageError`` beyond a limit."""
    cases = list(
        dict.fromkeys(Case(*each) for each in itertools.product(operations, block_sizes, batch_sizes, threads))
    )
    if not 0 < len(cases) <= MAX_CASES:
        raise UsageError(detail=f"a sweep of {len(cases)} cases; from 1 to {MAX_CASES} can be measured")
    for case in cases:
        _check("block size", case.block_size, MAX_BLOCK_SIZE)
        _check("batch size", case.batch_size, MAX_BATCH_SIZE)
        _check("number of threads", case.threads, MAX_THREADS)
    return cases


def doubling(first: int, last: int) -> list[int]:
    """``first``, and its doubles up to ``last``. Raises ``UsageError`` where there are none."""
    if not 0 < first <= last:
        raise UsageError(detail=f"a range from {first} to {last} is empty")
    return [first << power for power in range((last // first).bit_length())]


def _check(what: str, value: int, limit: int) -> None:
    if not 0 < value <= limit:
        raise UsageError(detail=f"a {what} of {value}; from 1 to {limit} is allowed")
