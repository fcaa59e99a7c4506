"""Pages whose every statement names the test that proves it: each of those tests is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PAGES = [
    path
    for path in sorted((ROOT / "docs").glob("*.md"))
    if "::test_" in path.read_text() and path.name != "security.md"  # its table has a test of its own, test_security.py
]

NAMED = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


@cache
def names_in(path: Path) -> set[str]:
    """The names of the tests of a file."""
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def statements(text: str) -> list[str]:
    """The items of a page's lists, each with all of its lines."""
    return re.findall(r"^- .*(?:\n  .*)*", text, re.MULTILINE)


def test_there_are_such_pages() -> None:
    assert {page.name for page in PAGES} >= {"memory.md", "processes.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_statement_names_a_test_that_is_there(page: Path) -> None:
    found = statements(page.read_text())
    assert found
    for statement in found:
        named = NAMED.findall(statement)
        assert named, f"no test is named by: {statement}"
        for path, name in named:
            assert name in names_in(ROOT / path), f"{path}::{name} is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_it_can_be_found_from_the_readme_and_the_list_of_documents(page: Path) -> None:
    assert f"({page.name})" in (ROOT / "docs/README.md").read_text()
    assert f"(docs/{page.name})" in (ROOT / "README.md").read_text()
