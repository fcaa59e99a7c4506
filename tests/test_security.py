"""What docs/security.md says is shown by tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT)))


def test_it_names_tests() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_test_that_is_named_is_there(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_each_row_names_one() -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| to ")]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"::\w+` \|$", row)] == []


def test_the_readme_leads_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Security") :]
    assert "docs/security.md" in section[: section.index("## More")]
