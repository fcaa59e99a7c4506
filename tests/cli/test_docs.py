from __future__ import annotations

import pytest

from engine.config.variables import PROGRAM_VARIABLES, VARIABLES
from p2pstore.settings.keys import KEYS
from scripts.cli_model import walk
from scripts.generate_docs import DIRECTORY, STATUSES, documents, own_errors
from scripts.json_keys.documents import DOCUMENTS, WITHOUT
from scripts.json_keys.form import faults, shape


@pytest.mark.parametrize("name", ["cli.md", "environment.md", "errors.md", "json.md", "metrics.md"])
def test_the_references_are_not_stale(name: str) -> None:
    assert (DIRECTORY / name).read_text() == documents()[name], "run 'python -m scripts.generate_docs'"


def test_every_command_has_its_keys_told_or_none() -> None:
    told = {command for document in DOCUMENTS for command in document.commands}
    assert not told & set(WITHOUT)
    assert told | set(WITHOUT) == {
        " ".join(command.path) for command in walk() if command.path and not command.commands
    }


def test_every_exit_status_has_a_meaning() -> None:
    assert {cls.exit_code for cls in own_errors()} <= set(STATUSES)


def test_every_command_has_help_examples_and_explained_options() -> None:
    for command in walk():
        name = " ".join(command.path)
        assert command.text, name
        assert command.commands or command.examples, name
        assert all(option.help for option in command.options), name
        assert all(text for _, text in command.arguments), name


def test_the_table_of_commands_says_what_each_command_says() -> None:
    for command in walk():
        if command.path:
            assert command.text.splitlines()[0] == command.help


def test_every_example_is_a_command_line_that_parses() -> None:
    import shlex

    from mooncake_cli.app import root_command

    for command in walk():
        for example in command.examples:
            words = shlex.split(example.partition("  #")[0].partition(" | ")[0])
            assert words[0] == "mooncake"
            _parse(root_command(), words[1:])


def _parse(command: object, words: list[str]) -> None:
    context = command.make_context("mooncake", list(words))  # type: ignore[attr-defined]
    # Click has renamed it.
    first = vars(context).get("_protected_args", vars(context).get("protected_args", []))
    rest = [*first, *context.args]
    if hasattr(command, "list_commands"):
        name, below, arguments = command.resolve_command(context, rest)
        assert name
        below.make_context(name, list(arguments), parent=context) if not hasattr(below, "list_commands") else _parse(
            below, arguments
        )


def test_every_setting_is_explained() -> None:
    text = documents()["cli.md"]
    assert all(f"| `{key.name}` | `{key.variable}` |" in text and key.help for key in KEYS.values())


def test_every_variable_of_upstream_is_in_a_group_of_the_reference() -> None:
    text = documents()["environment.md"]
    assert all(f"| `{each.name}` |" in text for each in (*VARIABLES, *PROGRAM_VARIABLES))


KEYS_OF_A_SAMPLE = shape("""
a    text      it
n    number?   it
l    [object]  them
  x  flag  it
o?   object    it
  *  integer  of that name
""")


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"a": "", "n": None, "l": [], "o": {"any": 1}}, None),
        ({"a": "", "n": 1.5, "l": [{"x": True}]}, None),
        ({"a": 1, "n": 1, "l": []}, "a is 1, and no text"),
        ({"a": "", "n": True, "l": []}, "n is True, and no number"),
        ({"a": None, "n": 1, "l": []}, "a is None, and no text"),
        ({"n": 1, "l": []}, "a is missing"),
        ({"a": "", "n": 1, "l": [], "b": 1}, "b is not known"),
        ({"a": "", "n": 1, "l": {}}, "l is {}, and no list"),
        ({"a": "", "n": 1, "l": [{"x": True}, {"x": 1}]}, "l[].x is 1, and no flag"),
        ({"a": "", "n": 1, "l": [{}]}, "l[].x is missing"),
        ({"a": "", "n": 1, "l": [{"x": True, "y": 1}]}, "l[].y is not known"),
        ({"a": "", "n": 1, "l": [], "o": {"any": "x"}}, "o.any is 'x', and no integer"),
    ],
)
def test_a_document_that_is_not_as_told_is_found(document: object, fault: str | None) -> None:
    assert list(faults(document, KEYS_OF_A_SAMPLE)) == ([fault] if fault else [])
