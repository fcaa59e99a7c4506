"""``mooncake store put``: put a file under a key."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import IO, Annotated

import typer

from engine.cgroups import memory_available
from mooncake_cli.commands.store import Master, Tenant, store_client
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import counted, printable
from p2pstore.errors import PathNotFound, StorageError, UsageError
from p2pstore.kv.errors import FileChanged, KeyExists
from p2pstore.objects.file_system import words
from p2pstore.objects.units import format_size

STDIN = "-"

PIECE_BYTES = 16 << 20
"""Read at a time."""

USABLE = 7 / 8
"""What a value may take of the free memory: beyond it the kernel would end this process, or another."""

EXAMPLES = {
    "put": (
        "mooncake store put step-7/w weights.bin",
        "mooncake store put logs -                   # what comes over standard input",
        "mooncake store put step-7/w weights.bin --replicas 2 --replace",
    )
}


def put(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key.")],
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="The value: a file, or - for standard input.")],
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of a value that is there.")] = False,
    replicas: Annotated[
        int, typer.Option("--replicas", metavar="COUNT", min=1, max=1024, help="Put it into so many clients' memory.")
    ] = 1,
    hard_pin: Annotated[bool, typer.Option("--pin", help="Never evict it; it stays until it is removed.")] = False,
    tenant: Tenant = None,
    master: Master = None,
) -> None:
    """Put a file under a key.

    The value lies in memory that clients gave to the pool; this command gives none. Values do not change: where the
    key has one already, nothing is put unless you say --replace.
    """
    invocation: Invocation = ctx.obj
    value = _value(file)
    size = len(value)
    if not size:
        shown = "standard input" if file == STDIN else file
        raise UsageError(detail=f"{shown} is empty, and the store has no empty values")
    with store_client(invocation, master, tenant) as store:
        new = store.put(key, value, replace=replace, replicas=replicas, hard_pin=hard_pin)
        made = len(store.replicas(key).replicas) if new and replicas > 1 else 1
    if not new and not replace:
        raise KeyExists(key=key)
    if made < replicas:
        invocation.output.warning(
            f"it has {counted(made, 'replica')}: no more clients give memory that has room for it"
        )
    document = {"key": key, "size": size, "replicas": made}
    invocation.output.done(document, human=f"put {format_size(size)} under {printable(key)}", quiet=[printable(key)])


def _value(file: str) -> bytes | bytearray:
    """The bytes to put. Raises ``PathNotFound``, ``StorageError``, ``FileChanged``, ``UsageError``.

    They are read, not mapped: bytes that change between checksum and copy would be wrong for ever, and those of a file
    that is cut short would end this process.
    """
    if file == STDIN:
        return _input()
    try:
        with Path(file).open("rb") as stream:
            before = os.fstat(stream.fileno())
            if stat.S_ISCHR(before.st_mode) or stat.S_ISBLK(before.st_mode):
                raise UsageError(detail=f"{file} is no regular file; use - and redirect standard input")
            value = _read(stream, file)
            after = os.fstat(stream.fileno())
    except FileNotFoundError:
        raise PathNotFound(path=file) from None
    except OSError as error:
        raise StorageError(path=file, detail=words(error)) from None
    if stat.S_ISREG(before.st_mode) and (before.st_size, before.st_mtime_ns) != (len(value), after.st_mtime_ns):
        raise FileChanged(path=file)
    return value


def _read(stream: IO[bytes], name: str) -> bytearray:
    """All that comes. Raises ``UsageError`` for more than the memory that is free: a pipe may never end."""
    room = memory_available()
    value = bytearray()
    while piece := stream.read(PIECE_BYTES):
        value += piece
        if room is not None and len(value) > room * USABLE:
            raise UsageError(detail=f"{name} does not fit into memory here, of which {format_size(room)} are free")
    return value


def _input() -> bytearray:
    """All of standard input. Raises ``StorageError``, ``UsageError``."""
    if sys.stdin is None:  # what Python makes of one that is closed
        raise StorageError(path="standard input", detail="it is not open for reading")
    try:
        return _read(sys.stdin.buffer, "standard input")
    except OSError as error:
        detail = "it is not open for reading" if error.errno == errno.EBADF else words(error)
        raise StorageError(path="standard input", detail=detail) from None
