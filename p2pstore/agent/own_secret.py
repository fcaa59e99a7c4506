"""The secret that a user's nodes share without having been given one: on loopback, too, a host has other users.

It is made at the first start, and lies with the user's state, not in a home that was named, so that several agents of
one user on one host, and programs with a ``P2PStore``, understand one another.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from engine.files.durable import sync_open
from engine.files.system import system
from engine.files.writing import write_all
from p2pstore.agent.home import state_directory
from p2pstore.errors import NoHome, StorageError

OWN_FILE = "secret"
"""What it is called, in the user's state or in the home."""

SECRET_BYTES = 32
"""Random bytes in it."""

MODE = 0o600


def own_secret(fallback: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The file of this user's secret, which is made where there is none.

    Where the user's state cannot be written (no home directory, or another user's), it lies in ``fallback``; then only
    nodes that use the same directory understand one another. Raises ``StorageError`` and ``NoHome``.
    """
    try:
        return _secret_in(state_directory(os.environ if environ is None else environ))
    except (OSError, NoHome) as error:
        if fallback is None:
            if isinstance(error, NoHome):
                raise
            raise StorageError(path=error.filename, detail=error.strerror or error) from None
    try:
        return _secret_in(fallback)
    except OSError as error:
        raise StorageError(path=error.filename or fallback, detail=error.strerror or error) from None


def _secret_in(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise PermissionError(None, "it belongs to another user", str(directory))
    file = directory / OWN_FILE
    with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
        if stream.read(1):
            return file
    _make(file)
    return file


def _make(file: Path) -> None:
    """Write a new one whole, and not over one that another process has made meanwhile."""
    made = file.with_name(f".secret-{secrets.token_hex(8)}")
    descriptor = system.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    try:
        try:
            write_all(descriptor, base64.b64encode(secrets.token_bytes(SECRET_BYTES)) + b"\n")
            sync_open(descriptor, made)
        finally:
            system.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            if not file.stat().st_size:  # left by a full disk
                file.unlink()
        try:
            system.link(made, file)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            made.rename(file)
    finally:
        made.unlink(missing_ok=True)
