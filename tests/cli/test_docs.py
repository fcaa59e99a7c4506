from __future__ import annotations

import pytest

from engine.config.variables import PROGRAM_VARIABLES, VARIABLES
from p2pstore.settings.keys import KEYS
from scripts.cli_model import walk
from scripts.generate_docs import DIRECTORY, STATUSES, documents, own_errors


@pytest.mark.parametrize("name", ["cli.md", "environment.md", "errors.md"])
def test_the_references_are_not_stale(name: str) -> None:
    assert (DIRECTORY / name).read_text() == documents()[name], "run 'python -m scripts.generate_docs'"


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
