"""Two stores in one process: who has something, and who gets it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from p2pstore import P2PStore

Pair = tuple[P2PStore, P2PStore]


@contextmanager
def two_stores() -> Iterator[Pair]:
    """Both on a metadata store that nobody else uses."""
    url = f"memory://{secrets.token_hex(8)}"
    with P2PStore(url, node="a") as one, P2PStore(url, node="b") as other:
        yield one, other
