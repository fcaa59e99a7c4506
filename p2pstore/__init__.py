"""Objects over the engine: manifests, the catalog, metadata, the planner, pulls and the agent. It knows no terminal."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pstore.store import P2PStore

__all__ = ["P2PStore"]

# Many projects have an engine.py, and a script's own directory comes first on sys.path. Without being imported, which
# may do anything, what stands in our way is found out here, once and cheaply.
_SPEC = find_spec("engine")
_PLACE = os.path.realpath((_SPEC and _SPEC.origin) or "")
if os.path.dirname(os.path.dirname(_PLACE)) != os.path.dirname(os.path.dirname(os.path.realpath(__file__))):
    raise ImportError(
        f"{_PLACE if _SPEC else 'nothing'} is where the package 'engine' of mooncake should be: rename that, or take "
        "what holds it off sys.path (a script's own directory is the first there; 'python3 -P' leaves it out)",
        name="engine",
        path=_PLACE,
    )


def __getattr__(name: str) -> Any:
    # On demand: the command line imports modules of this package, and must not wait for the whole node.
    if name == "P2PStore":
        from p2pstore.store import P2PStore  # noqa: PLC0415 - see above

        return P2PStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
