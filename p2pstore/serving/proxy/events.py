"""The events of a stream (server-sent events, as OpenAI's API has them): cut where they end, and looked at. Pure."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

MAX_EVENT_BYTES = 4 << 20
"""Of one event; log-probabilities of a large vocabulary are long."""

DONE = b"[DONE]"
"""What the last event of a stream says."""

_END, _OTHER_END = b"\n\n", b"\r\n\r\n"


class BadStream(Exception):
    """What came is no stream of events."""


class Events:
    """Cuts bytes as they come into whole events; half of one is never passed on."""

    def __init__(self) -> None:
        self._rest = b""
        self.done = False
        """Whether the last event has come."""

    @property
    def unfinished(self) -> bool:
        """Whether half an event is there."""
        return bool(self._rest.strip())

    def feed(self, data: bytes) -> bytes:
        """The events that are whole now, one after the other. Raises ``BadStream`` for one that does not end."""
        if self._rest:
            data = self._rest + data
        if data.endswith(_END):
            whole, self._rest = data, b""
        else:
            ends = [at + len(end) for end in (_END, _OTHER_END) if (at := data.rfind(end)) >= 0]
            cut = max(ends, default=0)
            whole, self._rest = data[:cut], data[cut:]
            if len(self._rest) > MAX_EVENT_BYTES:
                raise BadStream(f"an event of more than {MAX_EVENT_BYTES} bytes")
        if DONE in whole and any(_data(line) == DONE for line in whole.splitlines()):  # and not in what a model says
            self.done = True
        return whole


def count(events: bytes) -> int:
    """How many there are in whole events."""
    return events.count(_END) + events.count(_OTHER_END)


class Says(Enum):
    """What the first events of a stream say."""

    NOTHING = "nothing"
    """No token yet: comments, or who speaks."""

    TOKEN = "token"  # noqa: S105 - no secret
    """There is output, or the end."""

    ERROR = "error"
    """The instance failed."""

    GARBAGE = "garbage"
    """It is no event of OpenAI's API."""


def look(events: bytes) -> tuple[Says, dict[str, Any] | None]:
    """What whole events say, and the error where there is one."""
    for line in events.splitlines():
        name, colon, value = line.partition(b":")
        if not line or not name:
            continue  # the end of an event, or a comment
        if not colon or name not in (b"data", b"event", b"id", b"retry"):
            return Says.GARBAGE, None
        if name != b"data":
            continue
        said, problem = _look_at(value.strip())
        if said is not Says.NOTHING:
            return said, problem
    return Says.NOTHING, None


def _data(line: bytes) -> bytes | None:
    """What a line of an event says, where it is one of data."""
    name, _, value = line.partition(b":")
    return value.strip() if name == b"data" else None


def _look_at(value: bytes) -> tuple[Says, dict[str, Any] | None]:
    if value == DONE:
        return Says.TOKEN, None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return Says.GARBAGE, None
    if not isinstance(found, dict):
        return Says.GARBAGE, None
    if found.get("error"):
        return Says.ERROR, found
    choices = found.get("choices")
    if not isinstance(choices, list):
        return Says.GARBAGE, None
    spoken = not choices or any(_has_output(choice) for choice in choices)
    return (Says.TOKEN if spoken else Says.NOTHING), None


def _has_output(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return True
    delta = choice.get("delta")
    parts = delta if isinstance(delta, dict) else choice
    known = {"role", "index", "logprobs"}
    return bool(choice.get("finish_reason")) or any(value for key, value in parts.items() if key not in known)
