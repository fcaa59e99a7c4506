"""Which processes of this host belong together: what torchrun tells each of them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from p2pstore.errors import UsageError

RANK = "LOCAL_RANK"
SIZE = "LOCAL_WORLD_SIZE"

RUN = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "GROUP_RANK")
"""What the processes of one start have alike, and those of another have not. What is not set is left out."""

MAX_SIZE = 128
"""Processes of a host."""


@dataclass(frozen=True)
class Launch:
    """A process of a host: its ``rank`` of ``size``, and what it has in common with the others."""

    rank: int
    size: int
    run: str

    def meeting(self, *what: str) -> str:
        """The name of the place where those meet who want the same."""
        return hashlib.sha256("\0".join((self.run, str(self.size), *what)).encode()).hexdigest()[:32]


def launch_of(environ: Mapping[str, str]) -> Launch:
    """What the variables say. Raises ``UsageError``."""
    rank, size = (_number(environ, name) for name in (RANK, SIZE))
    if not 1 <= size <= MAX_SIZE or not 0 <= rank < size:
        raise UsageError(detail=f"share='host': {RANK}={rank} of {SIZE}={size} cannot be; at most {MAX_SIZE} can share")
    return Launch(rank, size, "\0".join(f"{name}={environ[name]}" for name in RUN if name in environ))


def _number(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name)
    if value is None:
        detail = (
            f"share='host' is for processes that torchrun starts, and {name} is not set: set it, or leave share= out"
        )
        raise UsageError(detail=detail)
    if not value.isascii() or not value.isdigit():
        raise UsageError(detail=f"share='host': {name}={value!r} is no number")
    return int(value)
