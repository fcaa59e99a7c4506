"""Object names for shell completion: at once or not at all, never a word of complaint, and never an agent started.

The completion scripts run ``mooncake complete-names PREFIX [--home DIR]``. It is no command of the Typer app, whose
import alone would take a quarter of the time that there is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import NoReturn

BUDGET = 0.3
"""Seconds for the agent to answer, from the first connection to the last byte."""

BUDGET_VARIABLE = "MOONCAKE_COMPLETION_SECONDS"
"""Environment variable for another budget: a home directory on a slow network, a test on a busy machine."""

MAX_NAMES = 1000
"""Names offered at most; nobody reads more."""


def complete_names(arguments: list[str]) -> NoReturn:
    """Print the names that begin with the first argument, one a line, and end the process with status 0."""
    prefix = arguments[0] if arguments else ""
    home = arguments[2] if len(arguments) > 2 and arguments[1] == "--home" else None
    names = names_within(_budget(), prefix, home)
    with contextlib.suppress(OSError):
        sys.stdout.write("".join(f"{name}\n" for name in names))
        sys.stdout.flush()
    # The thread that still waits for an answer must not be waited for.
    os._exit(0)


def _budget() -> float:
    try:
        return float(os.environ[BUDGET_VARIABLE])
    except (KeyError, ValueError):
        return BUDGET


def names_within(seconds: float, prefix: str, home: str | None) -> list[str]:
    """What the agent answers within ``seconds``; nothing where it does not, for whatever reason.

    A thread does the asking: a socket's own timeout bounds one read, and an agent could answer byte by byte.
    """
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(Exception):  # a word of it would stand in the line that the user types
            found.extend(_names(prefix, home))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return [] if asking.is_alive() else found


def _names(prefix: str, home: str | None) -> list[str]:
    from mooncake_cli.text import printable  # noqa: PLC0415 - the time that it takes is in the budget
    from p2pstore.agent.client import AgentClient  # noqa: PLC0415 - as above
    from p2pstore.agent.home import Home  # noqa: PLC0415 - as above
    from p2pstore.settings.settings import Settings  # noqa: PLC0415 - as above

    named = Settings.load({"home": home}).home
    page = AgentClient(Home.resolve(None if named is None else Path(named))).objects(prefix, limit=MAX_NAMES)
    return [item["name"] for item in page["objects"] if printable(item["name"]) == item["name"]]
