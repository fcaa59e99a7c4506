"""Commands that people are told to run, taken from a text, and read by our own command line without being run."""

from __future__ import annotations

import re
import shlex
from typing import Any

import typer

from mooncake_cli.app import root_command
from mooncake_cli.invocation import Invocation

COMMAND = re.compile(r"'(mooncake(?: [^']*)?)'")


def printed_commands(text: str) -> list[str]:
    """The commands in a sentence: what a user would paste."""
    return COMMAND.findall(text)


def parse(command: str) -> list[str]:
    """Let our command line read it, as a shell would pass it on; the names of the commands. Raises what it raises."""
    words = shlex.split(command)
    assert words[0] == "mooncake", command
    invocation = Invocation(words[1:])
    found: Any = root_command()
    path: list[str] = []
    if words[1:] == ["--help"]:
        return [""]
    context = found.make_context("mooncake", words[1:], obj=invocation)
    while hasattr(found, "resolve_command"):
        rest = [*(getattr(context, "_protected_args", None) or getattr(context, "protected_args", [])), *context.args]
        name, found, rest = found.resolve_command(context, rest)
        path.append(name)
        try:
            context = found.make_context(name, rest, parent=context, obj=invocation)
        except typer.Exit:  # --help
            break
    return path
