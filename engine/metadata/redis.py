"""``redis://host:port``: segments in Redis, as plain strings. Needs the package ``redis`` (extra ``redis``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from engine import forks
from engine.errors import (
    BadConfig,
    MetadataFull,
    MetadataRefused,
    MetadataUnavailable,
    MetadataUnhealthy,
    MooncakeError,
    PackageMissing,
)
from engine.metadata.base import KeyValueStore
from engine.net import addresses

DEFAULT_PORT = 6379
TIMEOUT = 3.0
"""Seconds to connect, and for each answer."""

_TROUBLES = {"READONLY", "MISCONF", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS"}
"""Redis's codes for what passes, or what its administrator mends, while user and password are right."""


class RedisStore(KeyValueStore):
    """Values in one Redis server."""

    def __init__(
        self, url: str, *, username: str | None = None, password: str | None = None, database: int = 0
    ) -> None:
        """Raises ``BadConfig``, also where the package is missing."""
        text = url.removeprefix("redis://").rstrip("/")
        if "@" in text:
            detail = "a password has no place in a URL, which others can see; set MC_REDIS_PASSWORD"
            raise BadConfig(origin="metadata server", detail=detail)
        self.url = url
        self._origin = forks.Origin("this metadata client")
        try:
            host, port = addresses.parse(text, DEFAULT_PORT)
        except addresses.BadAddress:
            raise BadConfig(origin="metadata server", detail=f"{url!r} is no redis://HOST:PORT") from None
        try:
            import redis  # noqa: PLC0415 - an extra: only who uses Redis needs it
        except ImportError:
            package, install = "the package redis", "mooncake-cli[redis]"
            raise PackageMissing(what="a metadata server redis://", package=package, install=install) from None
        self._errors = redis.exceptions
        self._client = redis.Redis(
            host=host,
            port=port,
            db=database,
            username=username or None,
            password=password or None,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
        )

    def get(self, key: str) -> bytes | None:
        """See ``KeyValueStore.get``."""
        return cast("bytes | None", self._call(lambda: self._client.get(key)))

    def put(self, key: str, value: bytes) -> None:
        """See ``KeyValueStore.put``."""
        self._call(lambda: self._client.set(key, value))

    def delete(self, key: str) -> None:
        """See ``KeyValueStore.delete``."""
        self._call(lambda: self._client.delete(key))

    def close(self) -> None:
        """See ``KeyValueStore.close``."""
        if not self._origin.elsewhere:
            self._client.close()

    def _call(self, action: Callable[[], Any]) -> Any:
        self._origin.check()
        try:
            return action()
        except (self._errors.AuthenticationError, self._errors.NoPermissionError) as error:
            raise MetadataRefused(url=self.url, detail=str(error)) from None
        except (self._errors.ConnectionError, self._errors.TimeoutError) as error:
            raise MetadataUnavailable(url=self.url, detail=str(error)) from None
        except self._errors.RedisError as error:
            raise _answered(self.url, str(error)) from None


def _answered(url: str, text: str) -> MooncakeError:
    """What an error that Redis answers means; its first word is its code."""
    code = text.split(" ", 1)[0]
    if code == "OOM":
        return MetadataFull(url=url, detail=text)
    return (MetadataUnhealthy if code in _TROUBLES else MetadataRefused)(url=url, detail=text)
