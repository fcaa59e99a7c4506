"""Objects over the engine: manifests, the catalog, metadata, the planner, pulls and the agent. It knows no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pstore.store import P2PStore

__all__ = ["P2PStore"]


def __getattr__(name: str) -> Any:
    # On demand: the command line imports modules of this package, and must not wait for the whole node.
    if name == "P2PStore":
        from p2pstore.store import P2PStore  # noqa: PLC0415 - see above

        return P2PStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
