"""Which implementation of the verbs is used; none is loaded before it is asked for."""

from __future__ import annotations

import os
import threading

from engine.errors import TransportUnavailable
from engine.transports.rdma.verbs.interface import Verbs

VARIABLE = "MOONCAKE_VERBS"
"""The environment variable that chooses: ``ctypes`` (the default) or ``pyverbs``."""

NAMES = ("ctypes", "pyverbs")

_loaded: dict[str, Verbs] = {}
_lock = threading.Lock()


def load_verbs(name: str = "") -> Verbs:
    """The implementation of this name, by default what ``MOONCAKE_VERBS`` says, or ctypes.

    Raises ``TransportUnavailable`` with the reason: no libibverbs, no pyverbs, or one of another rdma-core.
    """
    name = name or os.environ.get(VARIABLE, "") or NAMES[0]
    with _lock:
        if name not in _loaded:
            _loaded[name] = _load(name)
        return _loaded[name]


def _load(name: str) -> Verbs:
    if name == "ctypes":
        from engine.transports.rdma.verbs.ctypes_verbs import CtypesVerbs  # noqa: PLC0415 - loads a library

        try:
            return CtypesVerbs()
        except OSError:
            detail = "libibverbs.so.1 is not installed (Debian: libibverbs1 and ibverbs-providers)"
            raise TransportUnavailable(transport="rdma", detail=detail) from None
        except AttributeError as error:
            raise TransportUnavailable(transport="rdma", detail=f"libibverbs.so.1 is too old: {error}") from None
    if name == "pyverbs":
        try:
            from engine.transports.rdma.verbs.pyverbs_verbs import PyverbsVerbs  # noqa: PLC0415 - loads libraries
        except ImportError as error:
            detail = f"pyverbs does not load ({error}); use the one of this system's rdma-core (python3-pyverbs)"
            raise TransportUnavailable(transport="rdma", detail=detail) from None
        return PyverbsVerbs()
    raise TransportUnavailable(transport="rdma", detail=f"{VARIABLE} is {name!r}, and not {' or '.join(NAMES)}")
