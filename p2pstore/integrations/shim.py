"""``mooncake.store`` and ``mooncake.engine`` for programs that import them and have no wheel of upstream's.

``install`` puts a finder behind all others, so that a wheel that is there goes on being what is imported; or before
them, where ``MOONCAKE_COMPAT=1`` asks for ours. Nothing of ours is imported before a program asks for one of the two.
vLLM calls it in each of its processes (entry point ``vllm.general_plugins``), and so do our own integrations.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType

VARIABLE = "MOONCAKE_COMPAT"
"""1: ours in any case. 0: never. Otherwise ours where there is no wheel."""

PACKAGE = "mooncake"

MODULES: Mapping[str, str] = {
    "mooncake.store": "p2pstore.integrations.upstream_store",
    "mooncake.engine": "p2pstore.integrations.upstream_engine",
}
"""Upstream's modules, and ours that have their names in them."""


class Finder(importlib.abc.MetaPathFinder):
    """Finds upstream's modules, and the package that they are in where nobody else has it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the interface's
        target: ModuleType | None = None,  # noqa: ARG002 - the interface's
    ) -> importlib.machinery.ModuleSpec | None:
        """See ``MetaPathFinder``."""
        if fullname in MODULES:
            return importlib.machinery.ModuleSpec(fullname, _Loader(MODULES[fullname]), origin=MODULES[fullname])
        if fullname == PACKAGE and _others_have(PACKAGE) is None:
            return importlib.machinery.ModuleSpec(fullname, _Loader(""), origin=__name__, is_package=True)
        return None


class _Loader(importlib.abc.Loader):
    def __init__(self, ours: str) -> None:
        self._ours = ours

    def exec_module(self, module: ModuleType) -> None:
        """Give a module all that ours has for it."""
        if not self._ours:
            return
        found = importlib.import_module(self._ours)
        module.__dict__.update(found.exported(), __doc__=found.__doc__)


FINDER = Finder()


def install(environ: Mapping[str, str] = os.environ) -> None:
    """Let ``import mooncake.store`` find ours, as ``VARIABLE`` says. Twice is harmless."""
    wanted = environ.get(VARIABLE, "").strip().lower()
    if wanted in {"0", "no", "false", "off"} or FINDER in sys.meta_path:
        return
    # Behind all others it is asked for what nobody else has.
    first = wanted in {"1", "yes", "true", "on"}
    sys.meta_path.insert(0 if first else len(sys.meta_path), FINDER)


@contextmanager
def ours() -> Iterator[None]:
    """Within it ``mooncake.store`` is ours, whatever else there is; afterwards all is as it was."""
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    sys.meta_path.insert(0, FINDER)
    try:
        yield
    finally:
        sys.meta_path.remove(FINDER)
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
                setattr(sys.modules[PACKAGE], name.removeprefix(f"{PACKAGE}."), module)


def _others_have(name: str) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        if finder is not FINDER and (found := finder.find_spec(name, None)) is not None:
            return found
    return None
