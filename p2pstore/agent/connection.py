"""Connections to an agent's socket, and why there is none."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine import forks
from p2pstore.agent.home import Home, socket_address
from p2pstore.errors import (
    AgentEnded,
    AgentNotRunning,
    AgentStarting,
    HomeElsewhere,
    HomeOfAnother,
    MooncakeError,
    StorageError,
    from_wire,
)

CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""

CONNECT_TIMEOUT = 30
"""Whole seconds for the agent's socket to have room for one more: hundreds of commands may have begun at once."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the socket of one home."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CONNECT_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """See ``HTTPConnection``. Raises ``OSError``, a ``TimeoutError`` where there is no room for one more."""
        connection = forks.hold(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            # Python's own timeout would not wait: a Unix socket without room says "try again" to who does not block.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", CONNECT_TIMEOUT, 0))
            with socket_address(self._path) as address:
                connection.connect(address)
        except BlockingIOError:
            connection.close()
            raise TimeoutError from None
        except BaseException:
            connection.close()
            raise
        self.sock = connection


def send(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: Mapping[str, object] | Iterator[bytes] | None,
) -> None:
    """Send a call, whose body is JSON, or a stream."""
    if body is None or isinstance(body, Mapping):
        encoded = None if body is None else json.dumps(body).encode()
        connection.request(method, target, encoded, {"Content-Type": "application/json"} if encoded else {})
        return
    with contextlib.suppress(ConnectionError):  # it has refused, and says why
        connection.request(method, target, body, {"Transfer-Encoding": "chunked"}, encode_chunked=True)


def socket_of(home: Home) -> Path:
    """Where the agent listens: where its home says, unless that was removed and could not be made again.

    It was started, perhaps, with another ``XDG_RUNTIME_DIR``, or before a login made one.
    """
    if os.path.lexists(home.socket):
        return home.socket
    from p2pstore.agent.home_lock import holder  # noqa: PLC0415 - most homes have their socket

    found = holder(home)
    return Path(found.socket) if found is not None and found.socket else home.socket


def nobody_listens(home: Home) -> MooncakeError:
    """Why nobody accepts at the socket of a home: most often no agent runs."""
    from p2pstore.agent.home_lock import holder, waits_for  # noqa: PLC0415 - an answered call need not wait for it

    found = holder(home)
    if found is None:
        return last_end(home) or AgentNotRunning(home=home.root)
    if found.pid and not found.here:
        return HomeElsewhere(home=home.root, host=found.whereabouts, pid=found.pid)
    waits = waits_for(home)
    detail = f"it waits: {waits}" if waits else "it does not listen yet"
    return AgentStarting(home=home.root, pid=found.pid or "unknown", detail=detail)


def may_not_connect(home: Home, error: OSError) -> StorageError:
    """That the system refuses the way to a socket: most often since another user has it."""
    from p2pstore.agent.private import owner_above  # noqa: PLC0415 - seldom asked for

    found = owner_above(home.socket) if isinstance(error, PermissionError) else None
    if found is None:
        return StorageError(path=home.socket, detail=error.strerror or error)
    return HomeOfAnother(path=found[0], user=found[1])


def why_silent(home: Home) -> str:
    """What the state of the agent's process says of its silence; empty where it says nothing."""
    from engine.processes import state  # noqa: PLC0415 - as above
    from p2pstore.agent.home_lock import holder  # noqa: PLC0415 - as above

    found = holder(home)
    if found is None or not found.here:
        return ""
    if state(found.pid) in {"T", "t"}:
        return f": process {found.pid} is stopped, and 'kill -CONT {found.pid}' lets it go on"
    return f": process {found.pid} waits for a disk or a file server" if state(found.pid) == "D" else ""


def last_end(home: Home) -> AgentEnded | None:
    """Why the last agent of ``home`` ended itself; None where it did not, or another was started since."""
    try:
        data = json.loads(home.end_error.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict):
        return None
    return AgentEnded(home=home.root, time=data.get("time"), detail=from_wire(data.get("error")))
