"""Metadata URLs: what they mean, and the store behind one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from engine.etcd.credentials import EtcdCredentials
from engine.etcd.targets import unix_endpoint
from engine.net import addresses
from p2pstore.errors import BadConfig
from p2pstore.metadata.store import MetadataStore

DEFAULT_PORT = 2379
"""etcd's client port, for an endpoint that names none."""

MAX_ENDPOINTS = 32
"""Endpoints in one URL."""

UNIX = "etcd+unix"
"""The scheme of an etcd on a Unix socket, whose directory says who may use it."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class MetadataUrl:
    """A parsed URL: the scheme, and the endpoints (``host:port``), the path of one socket, or the name of a memory."""

    scheme: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.scheme}://{','.join(self.parts)}"


def _bad(url: str, detail: str) -> BadConfig:
    return BadConfig(origin=f"metadata URL {url!r}", detail=detail)


def parse_url(url: str) -> MetadataUrl:
    """``etcd://A:2379,B:2379`` (``;`` separates too), ``etcds://`` for TLS, ``etcd+unix:///PATH``, ``memory://NAME``.

    Pure.

    Raises ``BadConfig``; its text never repeats a password.
    """
    scheme, found, rest = url.strip().partition("://")
    if scheme == UNIX:
        return _of_socket(url, rest)
    if "@" in rest or "@" in scheme:
        # The text in front of the @ may be a password: say nothing of it.
        raise BadConfig(
            origin="metadata URL",
            detail="a user or password has no place in a URL, which others can see; set MOONCAKE_ETCD_USER, and "
            "MOONCAKE_ETCD_PASSWORD or MOONCAKE_ETCD_PASSWORD_FILE",
        )
    if not found:
        empty = "" if url.strip() else "it is empty; "
        raise _bad(url, f"{empty}say etcd://HOST:PORT,... or etcds://... for TLS")
    if scheme == "memory":
        if not _NAME.fullmatch(rest):
            raise _bad(url, "memory:// takes a name of letters, digits and . _ -")
        return MetadataUrl(scheme, (rest,))
    if scheme not in {"etcd", "etcds"}:
        raise _bad(url, f"{scheme}:// is not understood; say etcd://HOST:PORT,... or etcds://... for TLS")
    try:
        parts = tuple(addresses.endpoints(rest.rstrip("/"), DEFAULT_PORT))
    except addresses.BadAddress as error:
        raise _bad(url, str(error)) from None
    if not parts:
        raise _bad(url, "it names no server")
    if len(parts) > MAX_ENDPOINTS:
        raise _bad(url, f"it names more than {MAX_ENDPOINTS} servers")
    return MetadataUrl(scheme, parts)


def servers_of(url: str) -> list[tuple[str, int]]:
    """Host and port of each server of a URL; none where there is no server. Raises ``BadConfig``."""
    parsed = parse_url(url)
    return [] if parsed.scheme in {"memory", UNIX} else [addresses.parse(part) for part in parsed.parts]


def _of_socket(url: str, path: str) -> MetadataUrl:
    if not os.path.isabs(path) or "\0" in path:
        raise _bad(url, f"{UNIX}:// takes the absolute path of a socket")
    return MetadataUrl(UNIX, (path,))


def open_store(url: str, credentials: EtcdCredentials | None = None) -> MetadataStore:
    """The store behind a URL; nothing is connected before its first call. Raises ``BadConfig``."""
    parsed = parse_url(url)
    if parsed.scheme == "memory":
        from p2pstore.metadata.memory import MemoryStore  # noqa: PLC0415 - only the chosen store is loaded

        return MemoryStore(name=parsed.parts[0])
    from p2pstore.metadata.etcd import EtcdStore  # noqa: PLC0415 - grpc takes its time to import

    if parsed.scheme == UNIX:
        return EtcdStore([unix_endpoint(parsed.parts[0])], credentials, url=str(parsed))
    return EtcdStore(parsed.parts, credentials, tls=parsed.scheme == "etcds")
