"""Who may read through the hub's interface: who shows the token, or where there is none, this user's own programs.

Loopback is open to every user of a host. So the kernel is asked whose the other end of a connection is; its tables of
sockets tell it. That does not tell a user's browser from the pages that it shows: see ``engine.net.web_pages``.
"""

from __future__ import annotations

import hmac
import os
import socket
import sys
from pathlib import Path

from p2pstore.errors import StorageError, UsageError

TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}

MIN_TOKEN_BYTES = 16
"""Of a token: a shorter one can be guessed."""

MAX_TOKEN_BYTES = 4096

_LOCAL, _REMOTE, _UID, _INODE = 1, 2, 7, 9
"""Columns of such a table, by proc(5)."""

_NOBODYS = "0"
"""The inode of a socket that no process has open any more; its user is then shown as root."""


def shown(address: str, port: int) -> str:
    """An address and a port as the kernel's tables have them: words of the host's byte order."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address.partition("%")[0])
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    text = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return f"{text}:{port:04X}"


def uid_in(table: str, theirs: str, ours: str) -> int | None:
    """Whose the socket is that has these two addresses; None where none is there, or nobody has it open any more."""
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) > _INODE and columns[_LOCAL] == theirs and columns[_REMOTE] == ours:
            return int(columns[_UID]) if columns[_INODE] != _NOBODYS else None
    return None


def uid_of(theirs: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """The user at the other end of a connection on this host; None where nobody can say. It reads files."""
    theirs, ours = (plain(theirs[0]), theirs[1]), (plain(ours[0]), ours[1])
    families = [socket.AF_INET6] if ":" in theirs[0] else [socket.AF_INET, socket.AF_INET6]
    for family in families:
        mapped = "::ffff:" if family == socket.AF_INET6 and ":" not in theirs[0] else ""
        try:
            table = Path(TABLES[family]).read_text(encoding="ascii")
        except OSError:
            continue
        found = uid_in(table, shown(mapped + theirs[0], theirs[1]), shown(mapped + ours[0], ours[1]))
        if found is not None:
            return found
    return None


def plain(address: str) -> str:
    """An address without what a socket of IPv6 puts before one of IPv4."""
    return address.removeprefix("::ffff:") if "." in address else address


def is_ours(uid: int | None) -> bool:
    """Whether a user may read: the one that the node runs as, and root, who can do so anyway."""
    return uid is not None and uid in {os.geteuid(), 0}


def shows(header: str, token: str) -> bool:
    """Whether an Authorization header shows the token."""
    scheme, _, given = header.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def read_token(path: Path) -> str:
    """The token in a file. Raises ``StorageError``, or ``UsageError`` for what is none."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(MAX_TOKEN_BYTES + 1).strip()
    except OSError as error:
        raise StorageError(path=path, detail=(error.strerror or str(error)).lower()) from None
    if not MIN_TOKEN_BYTES <= len(text) <= MAX_TOKEN_BYTES or not text.isascii() or len(text.split()) != 1:
        raise UsageError(detail=f"hf_token_file: {path} holds no token of {MIN_TOKEN_BYTES} characters or more")
    return text.decode()
