"""The console entry.

It imports nothing that takes long: Ctrl-C is answered with a traceback until this module is there.
"""

from __future__ import annotations

import gc
import os
import sys

from mooncake_cli import EXIT_INTERRUPTED

TYPE_CHECKING = False  # typing takes longer to import than this module
if TYPE_CHECKING:
    from typing import NoReturn

COMPLETE_NAMES = "complete-names"
"""Hidden first word with which the completion scripts ask for object names (``mooncake_cli.names``)."""

EXIT_USAGE = 2

STANDARD_STREAMS = (0, 1, 2)
"""Descriptors of input, output and messages."""


def main() -> NoReturn:
    """Run the command that ``sys.argv`` holds, and end the process with its status."""
    gc.disable()  # what is imported stays, and looking through it would take a tenth of a short command's time
    arguments = sys.argv[1:]
    if arguments[:1] == [COMPLETE_NAMES]:
        from mooncake_cli.names import complete_names  # noqa: PLC0415 - it must not wait for Typer

        complete_names(arguments[1:])
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not end the command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        from mooncake_cli.command_line import run  # noqa: PLC0415 - see above
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    except ImportError:
        if not (place := _in_our_place()):
            raise
        sys.stderr.write(
            f"error: {place} is where a package of mooncake should be\n"
            "hint: rename it, or take what holds it off PYTHONPATH; 'python3 -P' leaves the current directory out\n"
        )
        sys.exit(EXIT_USAGE)
    status = run(arguments)
    gc.freeze()  # nor need the end look through it
    sys.exit(status)


def _in_our_place() -> str:
    """The file or directory that has the name of a package of ours, and hides it; empty where none does."""
    from importlib.util import find_spec  # noqa: PLC0415 - where something is wrong already

    house = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for name in ("engine", "p2pstore"):
        spec = find_spec(name)
        place = os.path.realpath((spec and spec.origin) or "")
        if spec is not None and os.path.dirname(os.path.dirname(place)) != house:
            return place
    return ""


def _open_standard_streams() -> None:
    """Where we were started with closed ones, no file takes their numbers.

    Messages then go nowhere. A result must not get lost in silence: whoever writes one is refused, as by ``date >&-``.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) in STANDARD_STREAMS:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        unwritable = os.open(os.devnull, os.O_RDONLY)
        os.dup2(unwritable, 1)
        os.close(unwritable)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
