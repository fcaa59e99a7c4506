"""``mooncake register``: publish a file or a directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mooncake_cli.calls import follow
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import counted, printable, short_digest
from p2pstore.errors import BadName, PathNotFound, UsageError
from p2pstore.names import check_object_name
from p2pstore.units import format_seconds, format_size

EXAMPLES = {
    "register": (
        "mooncake register ./llama-3 --name models/llama-3",
        "mooncake register data.tar",
        "mooncake register ./llama-3 --name models/llama-3 --force    # after it changed",
    )
}


def register(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="File or directory; it stays where it is.")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the object [default: PATH's last part].")
    ] = None,
    chunk_size: Annotated[
        str | None,
        typer.Option("--chunk-size", metavar="SIZE", help="Power of two, 1MiB to 64MiB [default: by the size]."),
    ] = None,
    hash_name: Annotated[
        str | None, typer.Option("--hash", metavar="HASH", help="xxh3_128 or blake3 [default: xxh3_128].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what has this name with other content.")] = False,
) -> None:
    """Publish a file or directory under a name.

    Hashes PATH and serves it from where it lies, until it changes or 'mooncake unregister'. Starts an agent when none
    runs.
    """
    invocation: Invocation = ctx.obj
    settings = invocation.settings(chunk_size=chunk_size, hash=hash_name)
    absolute = os.path.abspath(path)
    if not os.path.lexists(absolute):
        raise PathNotFound(path=path)
    name = _default_name(absolute) if name is None else check_object_name(name)
    client = invocation.client_of_started(settings)
    events = client.register(absolute, name, chunk_size=settings.chunk_size, hash_name=settings.hash, force=force)
    result = follow(invocation.output, events, "hashing")
    chunks = f"{counted(result['chunks'], 'chunk')} of {format_size(result['chunk_size'])}"
    parts = f"{counted(result['files'], 'file')}, {chunks}"
    rate = f", {format_size(result['size'] / result['seconds'])}/s" if result["seconds"] else ""
    human = (
        f"registered {printable(result['name'])}: {format_size(result['size'])}, {parts}, "
        f"in {format_seconds(result['seconds'])}{rate}\n"
        f"manifest {short_digest(result['manifest'])}; elsewhere: mooncake get {printable(result['name'])} DEST"
    )
    invocation.output.done(result, human=human, quiet=[result["name"]])


def _default_name(absolute: str) -> str:
    base = Path(absolute).name
    try:
        return check_object_name(base)
    except BadName as error:
        reason = error.fields["detail"]
        detail = f"{base!r} cannot name an object ({reason}); give a name with --name"
        raise UsageError(detail=detail) from None
