"""A module's tests are found at once: at the mirrored path under its name, or where CONTRIBUTING.md says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

WITHOUT_TESTS = {"__init__.py", "__main__.py", "_version.py"}
"""They hold no code, or two lines that other tests run through."""

ROW = re.compile(r"^\| `([\w/]+\.py)` \| `(tests/[\w/.]+)` \| (.+) \|$", re.MULTILINE)
"""One row of the table in CONTRIBUTING.md: module, its tests, the reason."""


def modules() -> Iterator[Path]:
    for package in ("engine", "p2pstore", "mooncake_cli"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name not in WITHOUT_TESTS:
                yield path.relative_to(ROOT)


def mirrored(module: Path) -> Path:
    """Where a module's tests are looked for: the command line's commands and parts share one directory."""
    directory = Path("cli") if module.parts[0] == "mooncake_cli" else module.parent
    return Path("tests") / directory / f"test_{module.name}"


def elsewhere() -> dict[str, str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return {module: tests for module, tests, _ in ROW.findall(text)}


@pytest.mark.parametrize("module", list(modules()), ids=str)
def test_a_modules_tests_are_found(module: Path) -> None:
    if (ROOT / mirrored(module)).exists():
        assert str(module) not in elsewhere(), "its row in CONTRIBUTING.md is not needed any more"
    else:
        assert str(module) in elsewhere(), (
            f"write {mirrored(module)}, or say in CONTRIBUTING.md where its tests are, and why"
        )


def test_what_lies_elsewhere_exists() -> None:
    for module, tests in elsewhere().items():
        assert (ROOT / module).exists(), module
        assert (ROOT / tests).exists(), tests


PLACES = (Path(), Path("p2pstore"), Path("engine"), Path("mooncake_cli"))
"""What a path in a document may be relative to."""


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "docs/design.md", "docs/engine.md", "docs/performance.md"]
)
def test_the_paths_that_documents_name_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|sh|toml))`", text))
    missing = [path for path in sorted(named) if not any((ROOT / place / path).exists() for place in PLACES)]
    assert missing == []
