"""The pooled store for values by key: its master, its clients, its wire above ``engine.rpc``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pstore.kv.client.async_store import AsyncStore
    from p2pstore.kv.client.store import Store

__all__ = ["AsyncStore", "Store"]

_MODULES = {"AsyncStore": "p2pstore.kv.client.async_store", "Store": "p2pstore.kv.client.store"}


def __getattr__(name: str) -> Any:
    # On demand: the master is imported without the client.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
