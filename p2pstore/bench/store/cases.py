"""What is measured of a store: the operation, and how large, how many and by how many at a time. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from engine.errors import UsageError

MAX_SIZE = 1 << 30
"""Bytes of a value."""

MAX_BATCH = 1 << 12
"""Keys of a call."""

MAX_THREADS = 64

MAX_CASES = 1000
"""Cases of one sweep."""

ROOM = 8
"""Batches of each thread for which the pool has room."""


class Operation(Enum):
    """What the client does: put from registered memory, get into it, or ask whether keys are there."""

    PUT = "put"
    GET = "get"
    EXIST = "exist"


@dataclass(frozen=True, slots=True)
class Case:
    """``threads`` threads, each with calls of ``batch`` keys whose values have ``size`` bytes, one call at a time."""

    operation: Operation
    size: int
    batch: int
    threads: int

    @property
    def footprint(self) -> int:
        """Bytes of the client's memory: each thread has a place for each key of its call."""
        return self.size * self.batch * self.threads

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return {
            "operation": self.operation.value,
            "size": self.size,
            "batch": self.batch,
            "threads": self.threads,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Case:
        """What ``to_json`` made."""
        return cls(Operation(data["operation"]), data["size"], data["batch"], data["threads"])


def sweep(
    operations: Iterable[Operation], sizes: Iterable[int], batches: Iterable[int], threads: Iterable[int]
) -> list[Case]:
    """Every combination once, operations outermost and threads innermost. Raises ``UsageError`` beyond a limit."""
    cases = list(dict.fromkeys(Case(*each) for each in itertools.product(operations, sizes, batches, threads)))
    if not 0 < len(cases) <= MAX_CASES:
        raise UsageError(detail=f"a sweep of {len(cases)} cases; from 1 to {MAX_CASES} can be measured")
    for case in cases:
        for what, value, limit in (
            ("value", case.size, MAX_SIZE),
            ("batch", case.batch, MAX_BATCH),
            ("number of threads", case.threads, MAX_THREADS),
        ):
            if not 0 < value <= limit:
                raise UsageError(detail=f"a {what} of {value}; from 1 to {limit} is allowed")
    return cases
