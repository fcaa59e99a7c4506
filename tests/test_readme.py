"""What README and the other pages promise: their commands parse, their tables are true, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from p2pstore.settings.keys import KEYS
from scripts.cli_model import shared_options, walk
from scripts.generate_docs import STATUSES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LEAVES = {command.path: command for command in walk() if command.path and not command.commands}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def command_lines() -> list[list[str]]:
    """Every call of ``mooncake`` in the shell blocks, in command substitutions too, as words without the first."""
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        for call in re.findall(r"(?:^|[(']|&& )\s*(mooncake .*)", line):
            words = shlex.split(re.split(r" \| | &&|'$|\)$", call)[0].replace("'", ""), comments=True)
            found.append(words[1:])
    return found


def options_of(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The command's path, and the options among ``words``."""
    values = {spelling: option.value for option in shared_options() for spelling in option.spellings}
    rest, options = [], []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-") and word != "-":
            option, value, _ = word.partition("=")
            options.append(option)
            skip = bool(values.get(option)) and not value
        else:
            rest.append(word)
    path = tuple(rest[:2]) if tuple(rest[:2]) in LEAVES else tuple(rest[:1])
    return path, options


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_every_command_line_names_a_command_and_options_that_exist(words: list[str]) -> None:
    path, options = options_of(words)
    if words == ["--version"]:
        return
    assert path in LEAVES, words
    known = {spelling for option in (*LEAVES[path].options, *shared_options()) for spelling in option.spellings}
    assert set(options) <= known


def test_the_table_of_commands_is_complete() -> None:
    section = README.split("## Commands", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `mooncake ([a-z ]+[a-z])", section, re.MULTILINE)
    assert {tuple(row.split()) for row in rows} == set(LEAVES)


def test_the_table_of_exit_statuses_is_true() -> None:
    section = README.split("## Exit statuses", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section, re.MULTILINE)
    assert {int(status): meaning for status, meaning in rows} == STATUSES


def test_the_configuration_is_understood() -> None:
    for block in blocks("toml"):
        assert set(tomllib.loads(block)) <= set(KEYS)


def test_the_python_example_compiles() -> None:
    for block in blocks("python"):
        compile(block, "README.md", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                target
            )


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs/README.md"
    linked = set(re.findall(r"\]\(([a-z-]+\.md)\)", index.read_text()))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")} - {index.name}
