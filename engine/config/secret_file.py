"""A secret or password in a file of its own."""

from __future__ import annotations

from pathlib import Path

from engine.errors import BadConfig

MAX_SECRET_BYTES = 4096
"""A secret or password, and the file that holds it."""

_NEWLINES = 2
"""Bytes that may stand after it, and do not count."""


def read_secret(file: Path, origin: str) -> bytes:
    """A secret's text, without the newline that editors put at its end."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_SECRET_BYTES + _NEWLINES + 1)
    except OSError as error:
        raise BadConfig(origin=origin, detail=f"secret file {file} cannot be read ({error.strerror})") from error
    text = data.rstrip(b"\r\n")
    if not text or len(text) > MAX_SECRET_BYTES or len(data) > MAX_SECRET_BYTES + _NEWLINES:
        size = "empty" if not text else f"longer than {MAX_SECRET_BYTES} bytes"
        raise BadConfig(origin=origin, detail=f"secret file {file} is {size}")
    return text
