"""Runs one command line, and turns whatever ends it into a message and an exit status."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import sys

import p2pstore.objects  # noqa: F401 - little to load, and whatever hides the package is noticed here
from engine.errnos import PATHS
from engine.errors import MooncakeError, StorageError, UsageError
from mooncake_cli import EXIT_INTERRUPTED
from mooncake_cli.invocation import Invocation
from mooncake_cli.reader import ReaderGone, forget, lost

EXIT_BUG = 1
EXIT_BROKEN_PIPE = 141
"""128 and the number of SIGPIPE, as a shell has it."""

CLICK_NOT_READ = 1
"""Click's status for help that nobody reads any more."""


def run(arguments: list[str]) -> int:
    """Run one command line; its exit status."""
    invocation = Invocation(arguments)
    try:
        import typer  # noqa: PLC0415 - it costs more than all else, and complete-names must not wait for it
    except KeyboardInterrupt:
        return _interrupted(invocation)

    try:
        from mooncake_cli.app import root_command  # noqa: PLC0415 - as above

        result = root_command().main(arguments, prog_name="mooncake", standalone_mode=False, obj=invocation)
    except MooncakeError as error:
        return _error(error, invocation)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(invocation)
    except ReaderGone:
        return EXIT_BROKEN_PIPE  # head and less have what they wanted
    except SystemExit as ended:
        return _ended(ended)
    except Exception as error:  # noqa: BLE001 - the last resort: a user gets a sentence, not a traceback
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            # The parser's own errors: Click's base class has a different home in each version of Typer.
            return _usage(error, invocation, arguments)
        if isinstance(error, FileNotFoundError) and _is_nowhere():
            text = "the current directory was removed, and paths that do not begin with '/' start there"
            return _error(UsageError(detail=text), invocation)
        if isinstance(error, OSError) and (error.errno in PATHS or _is_unwritable(error)):
            return _of_the_system(error, invocation)
        return _bug(error, invocation)
    return result if isinstance(result, int) else 0


def _ended(ended: SystemExit) -> int:
    if ended.code == CLICK_NOT_READ:
        forget(sys.stdout)
        return EXIT_BROKEN_PIPE
    return ended.code if isinstance(ended.code, int) else EXIT_BUG  # a signal's handler chose it


def _error(error: MooncakeError, invocation: Invocation) -> int:
    invocation.output.error(error, command=_command_of(invocation.arguments))
    return error.exit_code


def _command_of(arguments: list[str]) -> str:
    """The command that a line runs, as its help is asked for; empty where there is none."""
    from mooncake_cli.app import COMMANDS  # noqa: PLC0415 - as above

    for at, word in enumerate(arguments):
        if word in COMMANDS:
            inner = [name for name in arguments[at + 1 :] if name in COMMANDS[word].commands]
            return " ".join([word, *inner[:1]])
    return ""


def _of_the_system(error: OSError, invocation: Invocation) -> int:
    """What the system refused is no defect, wherever nobody has taken it for what it is: the help, say, has no sink."""
    if invocation.verbose or os.environ.get("MOONCAKE_DEBUG") == "1":
        import traceback  # noqa: PLC0415 - only here

        traceback.print_exception(error)
    if error.filename is None:
        forget(sys.stdout)
        return _error(lost(error), invocation)
    return _error(StorageError(path=error.filename, detail=error.strerror or error), invocation)


def _is_unwritable(error: OSError) -> bool:
    """Whether it says that standard output is not open for writing, and that is so."""
    return error.errno == errno.EBADF and fcntl.fcntl(sys.stdout, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def _is_nowhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _interrupted(invocation: Invocation) -> int:
    invocation.output.plain_error("Interrupted", "interrupted", EXIT_INTERRUPTED)
    return EXIT_INTERRUPTED


def _usage(error: Exception, invocation: Invocation, arguments: list[str]) -> int:
    status = int(getattr(error, "exit_code", 2))
    advice = f"see '{' '.join(['mooncake', *_command_of(arguments).split()])} --help'"
    if invocation.json or "--json" in arguments:
        invocation.json = True
        text = error.format_message()  # type: ignore[attr-defined]
    else:
        shown = io.StringIO()
        error.show(file=shown)  # type: ignore[attr-defined]
        text = shown.getvalue().removesuffix("\n")
        if getattr(error, "ctx", None) is None:  # an option without its value: Typer does not say whose it is
            text += f"\nhint: {advice}"
    invocation.output.plain_error("UsageError", text, status, advice)
    return status


def _bug(error: Exception, invocation: Invocation) -> int:
    if invocation.verbose or os.environ.get("MOONCAKE_DEBUG") == "1":
        import traceback  # noqa: PLC0415 - only here

        traceback.print_exception(error)
    text = f"internal error: {type(error).__name__}: {error}"
    hint = "this is a bug; run the command again with MOONCAKE_DEBUG=1 and report what it prints"
    invocation.output.plain_error("Bug", text if invocation.json else f"{text}\n{hint}", EXIT_BUG)
    return EXIT_BUG
