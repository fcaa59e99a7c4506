"""``mooncake watch``: a line for each new version of an object."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mooncake_cli import EXIT_INTERRUPTED
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Output
from mooncake_cli.text import printable, short_digest
from p2pstore.errors import UsageError
from p2pstore.objects.reference import ALGORITHM, parse_reference
from p2pstore.objects.units import format_size

SHELL = "/bin/sh"

EXAMPLES = {
    "watch": (
        "mooncake watch models/llama-3",
        "mooncake watch models/llama-3 --initial --exec 'mooncake get \"$MOONCAKE_REFERENCE\" /data/llama-3 --update'",
        "mooncake watch models/llama-3 --json | while read -r version; do ...; done",
    )
}


def watch(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of an object, or NAME:TAG; it may be none yet.")],
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="COMMAND", help="Run this by /bin/sh for each, one after the other."),
    ] = None,
    initial: Annotated[bool, typer.Option("--initial", help="Begin with the version that there is.")] = False,
) -> None:
    """Print a line for each new version of an object, until Ctrl-C.

    COMMAND finds what it is about in its environment: MOONCAKE_REFERENCE is NAME@sha256:DIGEST, MOONCAKE_OBJECT the
    name, MOONCAKE_TAG the tag, MOONCAKE_DIGEST and MOONCAKE_PREVIOUS are this version's digest and that of the one
    before, MOONCAKE_SIZE is in bytes, MOONCAKE_CREATOR the node that registered it. When it fails, that is told, and
    the watch goes on. With --json what it prints goes to standard error.

    A metadata server that does not answer is told, and waited for; of versions that came meanwhile the last is
    printed.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    if parse_reference(name).digest:
        raise UsageError(detail=f"{printable(name)} is one version for ever; a name or a tag can be watched")
    if command is not None and not command.strip():
        raise UsageError(detail="--exec is empty")
    client = invocation.client()
    try:
        with contextlib.closing(client.watch(name, initial=initial)) as events:
            for event in events:
                if event.get("event") == "note":
                    output.message(printable(event["text"]))
                elif event.get("event") == "version":
                    version = {key: value for key, value in event.items() if key != "event"}
                    output.record(version, version["reference"] if output.mode == "quiet" else _line(version))
                    if command is not None:
                        _run(output, command, version, str(client.home.root))
                output.still_read()  # some event comes every few seconds
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _line(version: Mapping[str, Any]) -> str:
    before = f", was {short_digest(version['previous'])}" if version["previous"] else ""
    return (
        f"{printable(version['name'])}@{ALGORITHM}:{short_digest(version['manifest'])}  "
        f"{format_size(version['size'])} by {printable(version['creator'])}{before}"
    )


def _run(output: Output, command: str, version: Mapping[str, Any], home: str) -> None:
    """Run COMMAND, and say how it failed, if it did. Ctrl-C is for it, too: its end is waited for."""
    told = {
        "MOONCAKE_HOME": home,
        "MOONCAKE_REFERENCE": version["reference"],
        "MOONCAKE_OBJECT": version["name"],
        "MOONCAKE_TAG": version["tag"],
        "MOONCAKE_DIGEST": version["manifest"],
        "MOONCAKE_PREVIOUS": version["previous"],
        "MOONCAKE_SIZE": str(version["size"]),
        "MOONCAKE_CREATOR": version["creator"],
    }
    where = sys.stderr if output.mode == "json" else None
    environment = {**os.environ, **told}
    try:
        # The user's own command, run by the shell that they wrote it for.
        status = subprocess.run([SHELL, "-c", command], env=environment, stdout=where, check=False).returncode
    except OSError as error:
        output.message(
            f"the command for {version['reference']} cannot be run: {error.strerror or error}; still watching"
        )
        return
    if status:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        output.message(printable(f"the command for {version['reference']} {how}; still watching"))
