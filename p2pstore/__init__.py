"""Objects over the engine: manifests, the catalog, metadata, the planner, pulls and the agent. It knows no terminal.

``P2PStore`` is the Python API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pstore.store import P2PStore

__all__ = ["P2PStore"]


def __getattr__(name: str) -> Any:
    """Import ``P2PStore`` when it is asked for: the command line uses this package without its servers."""
    if name == "P2PStore":
        from p2pstore.store import P2PStore  # noqa: PLC0415 - see above

        return P2PStore
    raise AttributeError(f"module 'p2pstore' has no attribute {name!r}")
