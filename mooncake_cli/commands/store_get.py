"""``mooncake store get``: write a value to a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mooncake_cli.commands.store import Master, Tenant, store_client
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import printable
from p2pstore.errors import Refused, StorageError, UsageError
from p2pstore.objects.file_system import words
from p2pstore.objects.units import format_size

STDOUT = "-"

EXAMPLES = {
    "get": (
        "mooncake store get step-7/w weights.bin",
        "mooncake store get logs - | tar t",
    )
}


def get(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key.")],
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Where to write it: a file, or - for standard output.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    tenant: Tenant = None,
    master: Master = None,
) -> None:
    """Write a value to a file.

    It is compared with the checksum that was put with it before it has its final name.
    """
    invocation: Invocation = ctx.obj
    if file == STDOUT and invocation.json:
        raise UsageError(detail="--json prints to standard output, where the value would go; name a file")
    path = Path(os.path.realpath(file))  # a link is followed, also one that leads to nothing yet
    if file != STDOUT:
        _check(file, path, force=force)
    with store_client(invocation, master, tenant) as store:
        value = store.get(key)
    if file == STDOUT:
        invocation.output.raw(value)
        return
    _write(path, value)
    document = {"key": key, "size": len(value), "file": file}
    human = f"wrote {format_size(len(value))} to {printable(file)}"
    invocation.output.done(document, human=human, quiet=[printable(file)])


def _check(file: str, path: Path, *, force: bool) -> None:
    if not file:
        raise UsageError(detail="the file's name is empty")
    if path.is_dir() or file.endswith("/"):
        raise UsageError(detail=f"{file} is a directory; name a file in it")
    if path.exists() and not path.is_file():
        raise UsageError(detail=f"{file} is no regular file; use - and redirect standard output")
    if path.exists() and not force:
        raise Refused(detail=f"{file} is there already; --force replaces it")


def _write(path: Path, value: bytes) -> None:
    from engine.files.writing import replace_file  # noqa: PLC0415 - only here

    try:
        replace_file(path, value, mode=0o666)
    except OSError as error:
        raise StorageError(path=path, detail=words(error)) from None
