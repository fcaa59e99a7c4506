"""``http://host:port/metadata``: upstream's HTTP metadata server, as a client.

``GET|PUT|DELETE <url>?key=<key>``; a value is the body. Only status 200 is success; 404 on GET is absence. Source:
upstream's ``transfer_metadata_plugin.cpp``.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
import urllib.parse
from typing import cast

from engine import forks
from engine.errors import BadConfig, MetadataFull, MetadataRefused, MetadataUnavailable, MetadataUnhealthy
from engine.metadata.base import MAX_VALUE, KeyValueStore
from engine.net import addresses

TIMEOUT = 3.0
"""Seconds for one call's connection, and for each wait for the server."""


_PATH = re.compile("[!-~]*")
"""What a request's line may hold: ASCII without spaces."""


class HttpStore(KeyValueStore):
    """Values in an HTTP metadata server, over one kept-alive connection."""

    def __init__(self, url: str) -> None:
        """Raises ``BadConfig`` for an invalid URL."""
        self.url = url
        if "@" in url:
            detail = "a password has no place in a URL, which others can see; metadata servers have no users"
            raise BadConfig(origin="metadata server", detail=detail)
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        good = addresses.is_host(host) and port != 0
        if not good or parts.scheme not in {"http", "https"} or not _PATH.fullmatch(parts.path):
            raise BadConfig(origin="metadata server", detail=f"{url!r} is no http://HOST:PORT/metadata")
        self._origin = forks.Origin("this metadata client")
        self._path = parts.path or "/metadata"
        self._lock = threading.Lock()
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=TIMEOUT, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    def get(self, key: str) -> bytes | None:
        """See ``KeyValueStore.get``."""
        status, body = self._call("GET", key)
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        self._check(status, body)
        return body

    def put(self, key: str, value: bytes) -> None:
        """See ``KeyValueStore.put``."""
        self._check(*self._call("PUT", key, value))

    def delete(self, key: str) -> None:
        """See ``KeyValueStore.delete``."""
        status, body = self._call("DELETE", key)
        if status != http.HTTPStatus.NOT_FOUND:
            self._check(status, body)

    def close(self) -> None:
        """See ``KeyValueStore.close``."""
        if self._origin.elsewhere:
            return
        with self._lock:
            self._connection.close()

    def _call(self, method: str, key: str, value: bytes | None = None) -> tuple[int, bytes]:
        self._origin.check()
        target = f"{self._path}?key={urllib.parse.quote(key, safe='')}"
        headers = {"Content-Type": "application/json"} if value is not None else {}
        with self._lock:
            for last in (False, True):  # a kept-alive connection may have been closed; all calls may be made twice
                try:
                    if self._connection.sock is None:
                        self._connection.connect()
                        forks.hold(cast("socket.socket", self._connection.sock))
                    self._connection.request(method, target, body=value, headers=headers)
                    with self._connection.getresponse() as answer:
                        body = answer.read(MAX_VALUE + 1)
                except (OSError, http.client.HTTPException) as error:
                    self._connection.close()
                    if last or isinstance(error, TimeoutError):
                        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
                        raise MetadataUnavailable(url=self.url, detail=detail) from None
                else:
                    if len(body) > MAX_VALUE:
                        self._connection.close()
                        raise MetadataRefused(url=self.url, detail=f"a value of more than {MAX_VALUE} bytes")
                    return answer.status, body
        raise AssertionError  # the loop's second round returns or raises

    def _check(self, status: int, body: bytes) -> None:
        if status == http.HTTPStatus.OK:
            return
        detail = f"status {status}"
        with contextlib.suppress(UnicodeDecodeError):
            detail += f" {body[:200].decode()}"
        if status == http.HTTPStatus.INSUFFICIENT_STORAGE:
            raise MetadataFull(url=self.url, detail=detail)
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise MetadataUnhealthy(url=self.url, detail=detail)
        raise MetadataRefused(url=self.url, detail=detail)
