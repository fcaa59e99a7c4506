"""What upstream's metadata connection strings mean."""

from __future__ import annotations

import os

from engine.config.settings import EngineSettings
from engine.errors import BadConfig, UsageError
from engine.etcd.targets import unix_endpoint
from engine.metadata.base import KeyValueStore, SegmentDirectory
from engine.metadata.handshake import URL as P2P
from engine.metadata.handshake import HandshakeDirectory
from engine.metadata.stored import StoredDirectory
from engine.net import addresses
from engine.net.listening import address_of
from engine.net.published import published

ETCD_PORT = 2379
MAX_ENDPOINTS = 32


def open_directory(url: str, settings: EngineSettings) -> SegmentDirectory:
    """The directory behind ``P2PHANDSHAKE``, ``etcd://``, ``etcds://``, ``redis://``, ``http://`` or ``https://``.

    Without a scheme it is etcd, as upstream has it. Nothing is connected yet. Raises ``BadConfig``.
    """
    text = url.strip()
    if text == P2P:
        return HandshakeDirectory(timeout=settings.connect_timeout)
    return StoredDirectory(open_store(text, settings), settings.cluster)


def open_store(url: str, settings: EngineSettings) -> KeyValueStore:
    """The server behind a URL. Raises ``BadConfig``. Only the chosen one's client is imported."""
    scheme, found, rest = url.partition("://")
    if not found:
        scheme, rest = "etcd", url
    if scheme in {"http", "https"}:
        from engine.metadata.http import HttpStore  # noqa: PLC0415 - only the chosen client is loaded

        return HttpStore(url)
    if scheme == "redis":
        from engine.metadata.redis import RedisStore  # noqa: PLC0415 - as above

        return RedisStore(
            url, username=settings.redis_username, password=settings.redis_password, database=settings.redis_db
        )
    if scheme in {"etcd", "etcds"}:
        endpoints = etcd_endpoints(rest)
        from engine.metadata.etcd_values import EtcdValues  # noqa: PLC0415 - as above

        return EtcdValues(endpoints, tls=scheme == "etcds", url=url)
    if scheme == "etcd+unix" and os.path.isabs(rest):  # an agent's own
        from engine.metadata.etcd_values import EtcdValues  # noqa: PLC0415 - as above

        return EtcdValues([unix_endpoint(rest)], tls=False, url=url)
    detail = f"{scheme}:// is not understood; say {P2P}, etcd://, redis:// or http://HOST:PORT/metadata"
    raise BadConfig(origin="metadata server", detail=detail)


def servers_of(url: str) -> list[tuple[str, int]]:
    """Host and port of each server of a URL; none for what is no address, which ``open_store`` refuses."""
    scheme, found, rest = url.partition("://")
    if not found or scheme in {"etcd", "etcds"}:
        return [addresses.parse(each) for each in etcd_endpoints(rest if found else url)]
    try:
        return [addresses.parse(rest.partition("/")[0].rpartition("@")[2], 80)]
    except addresses.BadAddress:
        return []


def etcd_endpoints(text: str) -> list[str]:
    """``A:2379,B`` (``;`` separates too) as a list of ``host:port``. Raises ``BadConfig``."""
    try:
        found = addresses.endpoints(text.rstrip("/"), ETCD_PORT)
    except addresses.BadAddress:
        # The text may hold a password: say nothing of it.
        detail = "an etcd server is HOST:PORT, without user or password"
        raise BadConfig(origin="metadata server", detail=detail) from None
    if not 0 < len(found) <= MAX_ENDPOINTS:
        raise BadConfig(origin="metadata server", detail=f"etcd:// names 1 to {MAX_ENDPOINTS} servers")
    return found


def whereabouts(local_hostname: str, metadata_server: str) -> tuple[str, str, str, int]:
    """The name in a metadata server, the host to listen on, the one that others are told, and the port.

    The name is what was given, unless that was an interface, a network or a wildcard: others need an address.
    """
    if not local_hostname:
        raise UsageError(detail="an engine needs a local hostname")
    host, port = addresses.given_place(local_hostname)
    own = address_of(host)
    told = published(own, servers_of(metadata_server) if metadata_server else ())
    name = local_hostname if told == host else addresses.join(told, port) if port else told
    return name, own, told, port
