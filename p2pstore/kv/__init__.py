"""The pooled store for values by key: its master, its clients, its wire above ``engine.rpc``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pstore.kv.client.store import Store

__all__ = ["Store"]


def __getattr__(name: str) -> Any:
    # On demand: the master is imported without the client.
    if name == "Store":
        from p2pstore.kv.client.store import Store  # noqa: PLC0415 - see above

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
