"""The command line as data, walked from the app: what the completion scripts and the reference are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mooncake_cli.app import COMMANDS, root_command
from mooncake_cli.framework import Lazy, global_params, sections
from p2pstore.settings.keys import HASHES, TRANSPORTS

CHOICES = {
    "WAY": TRANSPORTS,
    "HASH": HASHES,
    "WHOSE": ("ours", "mooncake", "both"),
    "SIDE": ("initiator", "target"),
    "MEMORY": ("other", "own"),
}
"""Metavars whose values are few."""

FILES = {"PATH", "DEST", "FILE"}
DIRECTORIES = {"DIR"}
NAMES = {"NAME", "PREFIX"}


@dataclass(frozen=True)
class Option:
    """One option: its spellings, what its value is (empty: it takes none), its help."""

    spellings: tuple[str, ...]
    value: str
    help: str


@dataclass(frozen=True)
class Command:
    """One command or group; ``path`` is empty for ``mooncake`` itself."""

    path: tuple[str, ...]
    help: str
    text: str
    examples: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]
    commands: tuple[tuple[str, str], ...]
    sections: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def shared_options() -> tuple[Option, ...]:
    """The options that every command has."""
    return (*(_option(param) for param in global_params()), Option(("-h", "--help"), "", "Show this text and end."))


def walk() -> list[Command]:
    """Every command, parents before children, in the order of the help."""
    root = root_command()
    commands = [_command((), root, "", COMMANDS)]
    _below((), root, COMMANDS, commands)
    return commands


def _below(path: tuple[str, ...], group: Any, table: Any, commands: list[Command]) -> None:
    for name, lazy in table.items():
        command = group.get_command(None, name)
        commands.append(_command((*path, name), command, lazy.help, lazy.commands))
        _below((*path, name), command, lazy.commands, commands)


def _command(path: tuple[str, ...], command: Any, summary: str, table: dict[str, Lazy]) -> Command:
    own = [param for param in command.params if param not in global_params()]
    return Command(
        path=path,
        help=summary,
        text=command.help or "",
        examples=command.examples,
        arguments=tuple(
            (str(param.metavar).strip("[]"), param.help or "") for param in own if param.param_type_name == "argument"
        ),
        options=tuple(_option(param) for param in own if param.param_type_name == "option"),
        commands=tuple((name, lazy.help) for name, lazy in table.items()),
        sections=tuple((title, tuple(rows)) for title, rows in sections(command)),
    )


def _option(param: Any) -> Option:
    alone = param.is_flag or str(param.metavar).startswith("[=")
    return Option(tuple(param.opts), "" if alone else str(param.metavar), param.help or "")
