"""Upstream's ``mooncake.json``, in each of its three generations.

- v0.2 (vLLM): ``prefill_url``, ``decode_url``, ``metadata_server``, ``metadata_backend``, ``protocol``,
  ``device_name``;
- v0.3: ``local_hostname``, ``metadata_server``, ``protocol``, ``device_name``, ``master_server_address``;
- now (``mooncake_config.py`` of upstream's wheel): the same with ``global_segment_size``, ``local_buffer_size``,
  ``enable_ssd_offload``, ``ssd_offload_path``, ``tenant_id``, ``enable_client_http_server``, ``client_http_port``;
- and, of ours alone, what the keys of an engine begin with: ``cache_prefix``, of ``mooncake serve init``.

Other programs own the file: keys that are not known here are logged and left alone, and none is required.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from engine.config.trust import open_obeyed
from engine.errors import BadConfig

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 20
"""A file; real ones have some hundred bytes."""

MAX_SIZE = 1 << 62
"""Bytes of a segment or buffer."""

P2P_HANDSHAKE = "P2PHANDSHAKE"
"""The "metadata server" of those who ask each other."""

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[kmgt]?)(?P<b>b?)")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")  # noqa: TRY004 - as the other parsers, whose value is wrong
    return value.strip()


def parse_size(value: object) -> int:
    """Bytes: a number, or a text like ``4gb``, whose units are powers of 1024 as upstream's. Else ``ValueError``."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip().lower())
        if match is None:
            raise ValueError(f"{value!r} is no size; write a number of bytes, or 4gb")
        value = int(float(match["number"]) * _UNITS[match["unit"]])
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SIZE:
        raise ValueError(f"{value!r} is no size; write a number of bytes, or 4gb")
    return value


def _boolean(value: object) -> bool:
    if isinstance(value, (bool, int)):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in {"true", "1", "yes", "on"}:
        return True
    if isinstance(value, str) and value.strip().lower() in {"false", "0", "no", "off", ""}:
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def _port(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise ValueError(f"{value!r} is no port")
    return value


@dataclass(frozen=True)
class MooncakeJson:
    """What a file says; None for what it does not. Sizes in bytes."""

    file: Path
    local_hostname: str | None = None
    metadata_server: str | None = None
    metadata_backend: str | None = None
    protocol: str | None = None
    device_name: str | None = None
    master_server_address: str | None = None
    prefill_url: str | None = None
    decode_url: str | None = None
    global_segment_size: int | None = None
    local_buffer_size: int | None = None
    enable_ssd_offload: bool | None = None
    ssd_offload_path: str | None = None
    tenant_id: str | None = None
    enable_client_http_server: bool | None = None
    client_http_port: int | None = None
    cache_prefix: str | None = None

    @property
    def metadata_url(self) -> str | None:
        """The metadata server with its scheme, or ``P2PHANDSHAKE``; None where the file names none."""
        return with_scheme(self.metadata_server or "", self.metadata_backend or "") or None


_PARSERS: Mapping[str, Callable[[object], Any]] = {
    "global_segment_size": parse_size,
    "local_buffer_size": parse_size,
    "enable_ssd_offload": _boolean,
    "enable_client_http_server": _boolean,
    "client_http_port": _port,
}
"""How the keys that are no text are understood."""

KEYS = tuple(field.name for field in fields(MooncakeJson) if field.name != "file")
"""The keys that are known."""


def with_scheme(server: str, backend: str = "") -> str:
    """A metadata server's name with the scheme that it stands for; without one upstream takes etcd."""
    if not server or server == P2P_HANDSHAKE or "://" in server:
        return server
    if backend.lower() == P2P_HANDSHAKE.lower():
        return P2P_HANDSHAKE
    return f"{backend.lower() or 'etcd'}://{server}"


def parse(text: str, file: Path) -> MooncakeJson:
    """What the text of a file says. Raises ``BadConfig`` for what is no JSON object, or a value that makes no sense."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadConfig(origin=str(file), detail=f"it is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise BadConfig(origin=str(file), detail=f"a JSON {type(data).__name__} where an object belongs")
    known: dict[str, Any] = {}
    for key, value in data.items():
        if key not in KEYS:
            log.debug("%s: key %r is not known here", file, key)
        elif value is not None:
            try:
                known[key] = _PARSERS.get(key, _text)(value)
            except ValueError as error:
                raise BadConfig(origin=f"{file}, {key}", detail=str(error)) from None
    return MooncakeJson(file=file, **known)


def read(file: Path) -> MooncakeJson:
    """What a file says. Raises ``BadConfig``, also where it cannot be read: somebody named it; and ``NotObeyed``."""
    try:
        with open_obeyed(file, named=True) as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadConfig(origin=str(file), detail=f"it cannot be read ({error.strerror})") from None
    if len(data) > MAX_FILE_BYTES:
        raise BadConfig(origin=str(file), detail=f"it is longer than {MAX_FILE_BYTES} bytes")
    try:
        return parse(data.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        raise BadConfig(origin=str(file), detail=f"it is no text ({error.reason})") from None
