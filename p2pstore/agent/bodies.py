"""What a call to the agent brings in its body, read and checked. Each raises ``UsageError`` for what makes no sense."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from aiohttp import web

from p2pstore.errors import UsageError
from p2pstore.objects.choices import DIGEST_BYTES
from p2pstore.objects.chosen import Choice, parse_range
from p2pstore.objects.manifest import check_chunk_size
from p2pstore.objects.selection import Selection
from p2pstore.pull.get import GetRequest
from p2pstore.settings.keys import TRANSPORTS

_ITEM = ("path", "name")


async def body_of(request: web.Request) -> dict[str, Any]:
    """The body of a call, a JSON object."""
    try:
        value = await request.json()
    except (ValueError, LookupError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(detail="the call's body is not a JSON object")
    return value


def text_of(body: dict[str, Any], key: str) -> str:
    """A text that is not empty."""
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise UsageError(detail=f"{key} is missing")
    return value


def path_of(body: dict[str, Any], key: str) -> Path:
    """An absolute path."""
    text = text_of(body, key)
    if not os.path.isabs(text) or "\0" in text:
        raise UsageError(detail=f"{key} is not an absolute path")
    return Path(text)


def items_of(value: Any) -> list[tuple[Path, str]]:
    """What a register of many is to publish: pairs of an absolute path and a name."""
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == len(_ITEM) for pair in value):
        raise UsageError(detail="items is not a list of pairs of a path and a name")
    bodies = [dict(zip(_ITEM, pair, strict=True)) for pair in value]
    return [(path_of(body, "path"), text_of(body, "name")) for body in bodies]


def hashing_of(body: dict[str, Any]) -> tuple[str, int, bool]:
    """The hash, the chunk size (0: by the size), and whether other content of the name is replaced."""
    hash_name = _choice(body, "hash", "xxh3_128", DIGEST_BYTES)
    chunk_size = body.get("chunk_size")
    if chunk_size is not None:
        if type(chunk_size) is not int:
            raise UsageError(detail="chunk_size is not a number")
        check_chunk_size(chunk_size)
    return hash_name, chunk_size or 0, bool(body.get("force"))


def selection_of(body: dict[str, Any]) -> Selection:
    """What is taken of directories."""
    include, exclude = texts_of(body, "include"), texts_of(body, "exclude")
    return Selection(include, exclude, everything=bool(body.get("all")))


def choice_of(body: dict[str, Any]) -> Choice:
    """What of an object is wanted."""
    include, exclude = texts_of(body, "include"), texts_of(body, "exclude")
    wanted = body.get("range")
    if wanted is None:
        return Choice("", include, exclude)
    if not isinstance(wanted, str):
        raise UsageError(detail="range is not text")
    try:
        return Choice("", include, exclude, parse_range(wanted))
    except ValueError as error:
        raise UsageError(detail=f"range: {error}") from None


def get_request(body: dict[str, Any]) -> GetRequest:
    """What a get is to bring."""
    return GetRequest(
        name=text_of(body, "name"),
        dest=path_of(body, "dest"),
        transport=_choice(body, "transport", "auto", TRANSPORTS),
        peers=texts_of(body, "peers"),
        seed=bool(body.get("seed", True)),
        dry_run=bool(body.get("dry_run")),
        force=bool(body.get("force")),
        wipe=bool(body.get("wipe")),
        update=bool(body.get("update")),
        tensors=texts_of(body, "tensors"),
        choice=choice_of(body),
    )


def stream_request(body: dict[str, Any]) -> GetRequest:
    """What a get to a stream is to bring."""
    return GetRequest(
        name=text_of(body, "name"),
        dest=Path("-"),
        transport=_choice(body, "transport", "auto", TRANSPORTS),
        peers=texts_of(body, "peers"),
        choice=choice_of(body),
    )


def texts_of(body: dict[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts; one that is missing is empty."""
    value = body.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(detail=f"{key} is not a list of texts")
    return tuple(value)


def _choice(body: dict[str, Any], key: str, default: str, allowed: Any) -> str:
    value = body.get(key) or default
    if not isinstance(value, str) or value not in allowed:
        raise UsageError(detail=f"{key} {value!r} is none of {', '.join(allowed)}")
    return value
