"""A web server on loopback with ranges, ETags and faults, which counts each byte of a file that it sends."""

from __future__ import annotations

import contextlib
import hashlib
import re
import ssl
import threading
from collections import Counter
from urllib.parse import unquote, urlsplit

from tests.loopback_server import LoopbackServer, QuietHandler

SLICE = 64 * 1024


class WebStandIn:
    """One server with some files by path."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.files: dict[str, bytes] = {}
        self.sent: Counter[str] = Counter()
        """Bytes of each file that were sent."""
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """Method, path with its query, and headers of each request."""
        self.headers: dict[str, str] = {}
        """More that is told of each file."""
        self.user = ""
        """What must be shown as Authorization, if anything."""
        self.down = False
        self.ranges = True
        self.content_range = ""
        """What is told of each part, if not which it is."""
        self.etags = True
        self.moved: dict[str, str] = {}
        """Paths that lead elsewhere."""
        self.hold = threading.Event()
        """While it is clear, no byte from offset ``held_from`` on is sent."""
        self.hold.set()
        self.held_from = 0
        self.break_each = 0
        """Of an answer so many bytes are sent, if it is not 0, then the connection breaks."""
        self.wrong: set[str] = set()
        """Files of which another byte is sent than there is."""
        self.lock = threading.Lock()
        server = self

        class Handler(_Handler):
            stand_in = server

        self._server = LoopbackServer(Handler, host, tls)
        self.url = self._server.url
        self.port = self._server.port

    def close(self) -> None:
        self.hold.set()
        self._server.close()

    def etag(self, path: str) -> str:
        return f'"{hashlib.sha256(self.files[path]).hexdigest()[:20]}"'


class _Handler(QuietHandler):
    stand_in: WebStandIn

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, path = self.stand_in, unquote(urlsplit(self.path).path)
        server.asked.append((self.command, self.path, dict(self.headers.items())))
        if server.down:
            self._answer(503, {})
        elif path in server.moved:
            self._answer(302, {"Location": server.moved[path]})
        elif server.user and self.headers.get("Authorization") != server.user:
            self._answer(401, {})
        elif path not in server.files:
            self._answer(404, {})
        else:
            self._file(path, server.files[path])

    def _file(self, path: str, data: bytes) -> None:
        server, headers = self.stand_in, dict(self.stand_in.headers)
        if server.etags:
            headers["ETag"] = server.etag(path)
        if server.ranges:
            headers["Accept-Ranges"] = "bytes"
        begin, end, status = 0, len(data), 200
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if server.ranges else None
        if found and self.headers.get("If-Range", headers.get("ETag")) == headers.get("ETag"):
            begin, end, status = int(found[1]), min(int(found[2]) + 1, len(data)), 206
            headers["Content-Range"] = server.content_range or f"bytes {begin}-{end - 1}/{len(data)}"
        self._answer(status, headers, end - begin)
        if self.command == "HEAD":
            return
        stop = min(end, begin + server.break_each) if server.break_each else end
        for at in range(begin, stop, SLICE):
            piece = bytearray(data[at : min(at + SLICE, stop)])
            if path in server.wrong and at == 0:
                piece[0] ^= 1
            if at >= server.held_from:
                server.hold.wait(100)
            if server.down:
                stop = at
                break
            with server.lock:  # before it is sent: who has it then looks
                server.sent[path] += len(piece)
            self.wfile.write(piece)
        if stop < end:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(2)

    def _answer(self, status: int, headers: dict[str, str], length: int = 0) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
