"""Traces of requests in the open format: a line of JSON for each.

``timestamp`` is in milliseconds, ``input_length`` and ``output_length`` in tokens; ``hash_ids`` has a number for each
block of 512 tokens, and equal ones mean equal prefixes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from p2pstore.errors import PathNotFound, StorageError, UsageError

MOST_TIMESTAMP_MS = 1e15
"""The latest timestamp: some 30,000 years. Far beyond it a float has no milliseconds."""

MOST_TOKENS = 1_000_000_000
"""The longest prompt and the longest output, which is far over what any model has."""


class Request(NamedTuple):
    """One line; ``time`` in seconds."""

    time: float
    length: int
    output: int
    blocks: tuple[int, ...]


def read(path: Path) -> list[Request]:
    """The requests of a file, by time. Raises ``UsageError`` for what is none, with its line."""
    requests = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        requests.append(_parsed(_document(line)))
                    except ValueError as error:
                        raise UsageError(detail=f"{path}, line {number}: {error}") from None
    except FileNotFoundError:
        raise PathNotFound(path=str(path)) from None
    except OSError as error:
        raise StorageError(path=str(path), detail=error.strerror or str(error)) from None
    if not requests:
        raise UsageError(detail=f"{path} has no requests")
    requests.sort(key=lambda request: request.time)
    return requests


def write(path: Path, requests: Iterable[Request]) -> None:
    """Write requests in the same format. Raises ``StorageError``."""
    lines = [
        json.dumps(
            {
                "timestamp": round(request.time * 1000),
                "input_length": request.length,
                "output_length": request.output,
                "hash_ids": request.blocks,
            }
        )
        for request in requests
    ]
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    except OSError as error:
        raise StorageError(path=str(path), detail=error.strerror or str(error)) from None


def _document(line: bytes) -> Any:
    """Raises ``ValueError`` in words for people: what the parser says is about the parser."""
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None
    except RecursionError:
        raise ValueError("its brackets are nested too deeply for a request") from None
    except json.JSONDecodeError as error:
        where = f"at character {error.pos + 1}" if error.pos < len(line.rstrip()) else "at its end"
        raise ValueError(f"it is no JSON, from what stands {where} on") from None
    except ValueError:  # a number of more digits than Python reads
        raise ValueError("it has a number that is too long") from None


def _parsed(document: Any) -> Request:
    if not isinstance(document, dict):
        raise ValueError('a request is a JSON object, such as {"timestamp": 0, ...}, and this is something else')  # noqa: TRY004 - a fault of the file, like the others
    time = document.get("timestamp")
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time <= MOST_TIMESTAMP_MS:
        raise ValueError(f"timestamp must be a number of milliseconds from 0 to {MOST_TIMESTAMP_MS:g}")
    blocks = document.get("hash_ids")
    if not isinstance(blocks, list) or not all(type(block) is int for block in blocks):
        raise ValueError("hash_ids must be a list of whole numbers")
    length = _tokens(document, "input_length", least=1)
    return Request(time / 1000, length, _tokens(document, "output_length", least=0), tuple(blocks))


def _tokens(document: dict[str, Any], name: str, least: int) -> int:
    value = document.get(name)
    if type(value) is not int or not least <= value <= MOST_TOKENS:
        raise ValueError(f"{name} must be a whole number from {least:,} to {MOST_TOKENS:,}")
    return value


def best_reuse(requests: Sequence[Request]) -> float:
    """The part of all blocks that a single cache without bounds would have, 0 to 1."""
    seen: set[int] = set()
    had = whole = 0
    for request in requests:
        whole += len(request.blocks)
        for block in request.blocks:
            if block not in seen:
                break
            had += 1
        seen.update(request.blocks)
    return had / whole if whole else 0.0
