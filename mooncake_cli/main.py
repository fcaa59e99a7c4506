"""The console entry.

It imports nothing that takes long: Ctrl-C is answered with a traceback until this module is there.
"""

from __future__ import annotations

import os
import sys

from mooncake_cli import EXIT_INTERRUPTED

TYPE_CHECKING = False  # typing takes longer to import than this module
if TYPE_CHECKING:
    from typing import NoReturn

COMPLETE_NAMES = "complete-names"
"""Hidden first word with which the completion scripts ask for object names (``mooncake_cli.names``)."""

STANDARD_STREAMS = (0, 1, 2)
"""Descriptors of input, output and messages."""


def main() -> NoReturn:
    """Run the command that ``sys.argv`` holds, and end the process with its status."""
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
    sys.exit(run(arguments))


def _open_standard_streams() -> None:
    """Where we were started with closed ones, what goes there goes nowhere, and no file takes their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) in STANDARD_STREAMS:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
