"""Whether a path to another node works: each transport is asked, and where it may, opened and closed again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import MooncakeError
from engine.transports.base import Channel, PeerAddress, Transport

TRANSPORTS = ("local", "rdma", "tcp")
"""Those that are asked, the best first."""

MAX_TEXT = 500
"""Characters of a peer's reason that are shown."""


@dataclass(frozen=True)
class Path:
    """One transport to one node. ``seconds`` is what connecting took; ``detail`` why it is not possible."""

    transport: str
    works: bool
    seconds: float = 0.0
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def check_paths(
    peer: PeerAddress, transport: Callable[[str], Transport], open_channel: Callable[[PeerAddress, str], Channel]
) -> list[Path]:
    """Try every transport to ``peer``. Takes as long as connecting does; raises nothing of a peer's."""
    found = []
    for name in TRANSPORTS:
        try:
            reason = transport(name).usable(peer)
            if reason:
                found.append(Path(name, works=False, detail=reason))
                continue
            began = time.monotonic()
            open_channel(peer, name).close()
            found.append(Path(name, works=True, seconds=round(time.monotonic() - began, 6)))
        except MooncakeError as error:
            found.append(Path(name, works=False, detail=str(error)))
    return found


def from_json(value: object) -> list[Path] | None:
    """What a peer found, or None where that is none of ours."""
    if not isinstance(value, list) or len(value) > len(TRANSPORTS):
        return None
    found = []
    for entry in value:
        if not isinstance(entry, dict) or entry.get("transport") not in TRANSPORTS:
            return None
        seconds, detail = entry.get("seconds", 0.0), entry.get("detail", "")
        if not isinstance(seconds, (int, float)) or not isinstance(detail, str):
            return None
        found.append(Path(entry["transport"], entry.get("works") is True, float(seconds), detail[:MAX_TEXT]))
    return found
