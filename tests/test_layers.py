"""Imports run downward only: mooncake_cli, p2pstore, engine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = ("mooncake_cli", "p2pstore", "engine")
"""From the top down."""

MODULES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The top-level packages that a module imports anywhere, for type checkers or late included."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_nothing_above_it(path: Path) -> None:
    above = set(LAYERS[: LAYERS.index(path.parts[0])])
    assert above.isdisjoint(imports(path))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_module_imports_tests_scripts_or_upstream(path: Path) -> None:
    assert {"tests", "scripts", "benchmarks", "mooncake"}.isdisjoint(imports(path))


def test_every_layer_has_modules() -> None:
    assert {path.parts[0] for path in MODULES} == set(LAYERS)
