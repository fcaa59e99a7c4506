"""Text for people: what came from elsewhere made harmless, times and dates made readable. Pure."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from p2pstore.objects.units import format_seconds

MAX_NAME = 48
"""Characters of a name from elsewhere in a table; machine-readable output has all of it."""

SHORT_DIGEST = 12
"""Hexadecimal digits of a digest that are shown in tables; enough to tell objects apart by eye."""


def printable(text: object) -> str:
    """``text`` with everything that is not printable as an escape: a name must not steer the terminal.

    Control characters, bidirectional overrides, lone surrogates and line breaks are all not printable.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def shortened(text: object, width: int = MAX_NAME) -> str:
    """``printable``, and where that is too long for a table its beginning and its end: names often differ there."""
    shown = printable(text)
    if len(shown) <= width:
        return shown
    end = (width - 1) // 2
    return f"{shown[: width - 1 - end]}…{shown[-end:]}"


def short_digest(digest: str) -> str:
    """The first digits of a digest, whatever prefix it has."""
    return printable(digest.rpartition(":")[2][:SHORT_DIGEST])


def counted(count: int, one: str, many: str = "") -> str:
    """``1 file``, ``2 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def age(moment: float | str, now: float | None = None) -> str:
    """How long ago ``moment`` was: seconds since the epoch, or ISO 8601; what is neither is shown as it is."""
    if isinstance(moment, str):
        try:
            # Python 3.10 reads no "Z".
            parsed = datetime.fromisoformat(moment.replace("Z", "+00:00"))
        except ValueError:
            return printable(moment)
        moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
    seconds = (time.time() if now is None else now) - moment
    return "now" if seconds < 1 else f"{format_seconds(int(seconds)) if seconds >= 10 else f'{int(seconds)} s'} ago"
