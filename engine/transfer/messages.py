"""Short messages between the processes of segments, over the handshake: notifications, and probes whether one lives."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from engine.errors import RemoteProtocolError
from engine.metadata.base import RpcEndpoint
from engine.net.handshake_client import exchange
from engine.protocol.handshake import Message, MessageType

MAX_NOTIFICATIONS = 1024
"""Notifications that wait to be taken; one more makes the oldest go."""


class Notification(NamedTuple):
    """What a peer sent with ``notify``."""

    name: str
    text: str


class Messages:
    """What one engine says to others, and what they have said to it. Thread-safe."""

    def __init__(self, endpoint: Callable[[str], RpcEndpoint], timeout: float) -> None:
        """``endpoint`` finds a segment's process by the segment's name. An answer takes ``timeout`` seconds at most."""
        self._endpoint = endpoint
        self._timeout = timeout
        self._taken: deque[Notification] = deque(maxlen=MAX_NOTIFICATIONS)

    def arrived(self, name: str, text: str) -> None:
        """A peer has sent this."""
        self._taken.append(Notification(name, text))

    def take(self) -> list[Notification]:
        """What has arrived since the last call, the oldest first; at most the last ``MAX_NOTIFICATIONS``."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._taken.popleft())
        return taken

    def notify(self, segment: str, name: str, text: str) -> None:
        """Send one. Raises ``RemoteError`` or ``SegmentNotFound``."""
        answer = self._ask(segment, Message(MessageType.NOTIFY, {"name": name, "notify_msg": text}))
        if answer.get("notify_msg") != "success":
            raise RemoteProtocolError(peer=segment, detail="it did not take the notification")

    def probe(self, segment: str) -> float:
        """Ask whether a segment's process lives; the seconds that its answer took. Raises as ``notify``."""
        began = time.monotonic()
        answer = self._ask(segment, Message(MessageType.PROBE))
        if answer.get("status") != "success":
            raise RemoteProtocolError(peer=segment, detail="it does not answer a probe with success")
        return time.monotonic() - began

    def _ask(self, segment: str, message: Message) -> dict[str, object]:
        at = self._endpoint(segment)
        return exchange(at.host, at.port, message, timeout=self._timeout).body
