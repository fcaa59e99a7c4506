"""Typer's classes as this command line needs them: commands imported when they are run, help in plain text.

Only names that Typer exports are used, since Typer brings Click along under a private name from 0.26 on.
"""

from __future__ import annotations

import functools
import gc
import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mooncake_cli.invocation import Invocation

HELP_NAMES = {"help_option_names": ["--help", "-h"]}

_GET, _REGISTER, _REMOVE, _INFO = ("get",), ("register", "put"), ("unregister", "remove", "cancel"), ("info", "show")
OTHER_WORDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("download", "pull", "fetch", "clone", "cat", "copy", "cp"), _GET),
    **dict.fromkeys(("upload", "push", "publish", "add", "share", "seed", "put", "set"), _REGISTER),
    **dict.fromkeys(("rm", "remove", "delete", "del", "unpublish", "evict"), _REMOVE),
    **dict.fromkeys(("stat", "show", "describe", "inspect", "du", "head"), _INFO),
    **dict.fromkeys(("ls", "find", "objects", "keys"), ("list", "show")),
    **dict.fromkeys(("check", "fsck", "scrub"), ("verify",)),
    **dict.fromkeys(("start", "run", "up", "daemon", "agent"), ("node start", "start")),
    **dict.fromkeys(("stop", "down", "kill"), ("node stop", "cancel")),
    **dict.fromkeys(("status", "ps", "peers"), ("node status", "status", "show")),
    **dict.fromkeys(("log", "logs"), ("node logs",)),
    **dict.fromkeys(("limit", "bwlimit", "throttle"), ("node limit",)),
    **dict.fromkeys(("settings", "env"), ("config show", "show")),
    **dict.fromkeys(("etcdctl",), ("etcd inspect",)),
    **dict.fromkeys(("benchmark", "perf"), ("bench",)),
}
"""Commands of comparable tools, by what is meant here: the first that a group has."""


def _remember(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Keep a global option where every command finds it; the option nearest to the command's end wins."""
    invocation = ctx.find_root().obj
    if value not in {None, False} and isinstance(invocation, Invocation):
        setattr(invocation, str(param.name), value)
    return value


def _globals(
    home: Annotated[
        str | None, typer.Option("--home", metavar="DIR", callback=_remember, help="Directory of the agent to use.")
    ] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="URL", callback=_remember, help="Metadata server to use.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", callback=_remember, help="Read FILE, not the user's file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", callback=_remember, help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", callback=_remember, help="Print only the result.")] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "-v",
            "--verbose",
            callback=_remember,
            help="Print more, tracebacks of defects too; an agent that is started logs more.",
        ),
    ] = False,
) -> None:
    """The global options, which may stand before and after the command."""


@functools.lru_cache(maxsize=1)
def global_params() -> tuple[Any, ...]:
    """The parameters of ``_globals`` as Typer builds them; no command's function gets their values."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(context_settings={"help_option_names": []})(_globals)
    params = tuple(param for param in typer.main.get_command(app).params if param.name != "help")
    for param in params:
        param.expose_value = False
    return params


class Command(TyperCommand):
    """One command: its own parameters, then the global options."""

    examples: tuple[str, ...] = ()
    several: tuple[str, ...] = ()
    """Options that take all the words up to the next option, as ``nargs="+"`` of ``argparse`` has it."""
    optional: Mapping[str, str] = {}
    """Options that may stand alone, and what they mean then; a value stands behind a ``=``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = {param.name for param in self.params}
        self.params.extend(param for param in global_params() if param.name not in names)

    def invoke(self, ctx: Any) -> Any:
        """Run it. From here on garbage is collected that ``main`` left alone while modules were imported."""
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does, with each word of an option that takes several behind that option's name.

        Raises ``typer.BadParameter`` for what is no number: a float option takes "nan", which no bound keeps out.
        """
        args = [f"{word}={self.optional[word]}" if word in self.optional else word for word in args]
        rest = list(super().parse_args(ctx, _spread(args, self.several)))
        for param in self.params:
            value = ctx.params.get(param.name)
            if isinstance(value, float) and math.isnan(value):
                raise typer.BadParameter("nan is no number.", ctx=ctx, param=param)
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line's words, spelled as in the list of arguments."""
        del ctx
        return ["[OPTIONS]", *(str(param.metavar) for param in self.params if param.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write examples, arguments, options and global options, in this order."""
        del ctx
        write_examples(formatter, self.examples)
        for title, rows in sections(self):
            write_section(formatter, title, rows)


@dataclass(frozen=True)
class Lazy:
    """A command that is imported when it is run, completed or asked for its own help.

    ``target`` is ``module:function``, or None for a group of ``commands``.
    """

    help: str
    target: str | None = None
    commands: Mapping[str, Lazy] = field(default_factory=dict)
    default: str = ""
    """Of a group, the command that is run where none is named; without one that is the help."""

    def load(self, name: str) -> Any:
        """The command itself. Its examples are its module's ``EXAMPLES``, by function name where it holds several."""
        if self.target is None:
            return group(self.commands, name=name, help_text=self.help, default=self.default)
        module_name, _, function_name = self.target.partition(":")
        module = importlib.import_module(module_name)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name, cls=Command, short_help=self.help)(getattr(module, function_name))
        command = typer.main.get_command(app)
        examples: Mapping[str, tuple[str, ...]] = module.EXAMPLES
        if isinstance(command, Command):
            command.examples = examples[function_name]
            command.several = getattr(module, "SEVERAL", {}).get(function_name, ())
            command.optional = getattr(module, "OPTIONAL", {}).get(function_name, {})
        return command


class LazyGroup(TyperGroup):
    """A group that knows its commands' names and one-line help, and imports a command only to run it."""

    lazy: Mapping[str, Lazy] = {}
    examples: tuple[str, ...] = ()
    default = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does; where no command is named, it is the default."""
        if self.default and not _names_something(args):
            args = [self.default, *args]
        return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Raises ``typer.Abort`` at Ctrl-C: Typer makes a status of it, and says nothing."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the table."""
        del ctx
        return list(self.lazy)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one command."""
        del ctx
        if cmd_name not in self.commands and cmd_name in self.lazy:
            self.commands[cmd_name] = self.lazy[cmd_name].load(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As Typer does; for an unknown name, the nearest ones are named without importing them."""
        if args and args[0] not in self.lazy and not args[0].startswith("-") and not ctx.resilient_parsing:
            meant = self._meant(ctx.command_path, args)
            ctx.fail(f"No such command '{args[0]}'.{f' Did you mean {meant!r}?' if meant else ''}")
        return super().resolve_command(ctx, args)

    def _meant(self, path: str, args: list[str]) -> str:
        """What is probably meant by a command that there is not; empty for what is like nothing."""
        word = args[0].lower()
        if word == "help":
            inner = [name for name in args[1:2] if name in self.lazy]
            return " ".join([path, *inner, "--help"])
        if word == "version":
            return "mooncake --version"
        for meant in OTHER_WORDS.get(word, ()):
            first, _, rest = meant.partition(" ")
            if first in self.lazy and (not rest or rest in self.lazy[first].commands):
                return meant
        near = get_close_matches(word, self.lazy, n=1)
        return near[0] if near else ""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write examples, the commands from the table, and the options."""
        del ctx
        write_examples(formatter, self.examples)
        write_section(formatter, "Commands", [(name, lazy.help) for name, lazy in self.lazy.items()])
        for title, rows in sections(self):
            write_section(formatter, title, rows)


def group(
    commands: Mapping[str, Lazy],
    *,
    name: str,
    help_text: str,
    examples: tuple[str, ...] = (),
    callback: Callable[..., None] | None = None,
    default: str = "",
) -> Any:
    """A group of commands that are imported when needed."""
    app = typer.Typer(cls=LazyGroup, add_completion=False, rich_markup_mode=None, no_args_is_help=True)
    app.callback(help=help_text, context_settings=dict(HELP_NAMES))(callback or _nothing)
    made = typer.main.get_command(app)
    made.name = name
    made.params.extend(global_params())
    if isinstance(made, LazyGroup):
        made.lazy = commands
        made.examples = examples
        made.default = default
    return made


def _names_something(args: list[str]) -> bool:
    """Whether the words behind a group's name have a command among them, or ask for help."""
    valued = {spelling for param in global_params() if not param.is_flag for spelling in param.opts}
    words = iter(args)
    for word in words:
        if word in HELP_NAMES["help_option_names"] or not word.startswith("-"):
            return True
        if word in valued:
            next(words, "")
    return False


def _spread(args: list[str], several: tuple[str, ...]) -> list[str]:
    """``--prefill A B`` as ``--prefill A --prefill B``, for those of ``several``."""
    found: list[str] = []
    option, taken = "", False
    for word in args:
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            option, taken = (name if name in several else ""), bool(equals)
        elif option and taken:
            found.append(option)
        taken = taken or (bool(option) and not word.startswith("-"))
        found.append(word)
    return found


def _nothing() -> None:
    """A group does nothing of its own."""


def records(params: Iterable[Any]) -> list[tuple[str, str]]:
    """Spelling and help of each parameter that is not hidden. Ours, since Typer's wording changes with its version."""
    rows = []
    for param in params:
        if getattr(param, "hidden", False):
            continue
        if param.param_type_name == "argument":
            rows.append((str(param.metavar), param.help or ""))
        else:
            spelling, value = ", ".join(param.opts), str(param.metavar)
            between = "" if param.is_flag or value.startswith("[=") else " "
            rows.append((spelling if param.is_flag else f"{spelling}{between}{value}", param.help or ""))
    return rows


def sections(command: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    """The parameters of a command as help and the reference list them: titles, and rows of spelling and help."""
    shared = [param for param in command.params if param in global_params()]
    own = [param for param in command.params if param not in shared]
    parts = [
        ("Arguments", records(param for param in own if param.param_type_name == "argument")),
        ("Options", records(param for param in own if param.param_type_name == "option")),
        ("Global options", [*records(shared), ("-h, --help", "Show this text and end.")]),
    ]
    return [(title, rows) for title, rows in parts if rows]


def write_examples(formatter: Any, examples: tuple[str, ...]) -> None:
    """Command lines as they are, neither folded nor joined."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def write_section(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    """A heading and a two-column list."""
    with formatter.section(title):
        formatter.write_dl(rows)
