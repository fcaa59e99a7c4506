"""A stand-in of the hub on loopback: as much of it as its clients use, with Xet's headers, redirects and faults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from p2pstore.hub.documents import RepoFile, info, tree, way_of
from p2pstore.hub.routes import parse
from p2pstore.objects.oid import SHA256, git_oid
from tests.loopback_server import LoopbackServer, QuietHandler

SLICE = 64 * 1024


class StandIn:
    """One hub with some repositories, and what it was asked. ``token``: what must be shown, if anything."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.sent: Counter[str] = Counter()
        """Bytes of each file that were sent."""
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and Authorization of each request."""
        self.asked_ranges: list[tuple[str, str]] = []
        """Path in the repository and Range of each request for a file's bytes."""
        self.token = ""
        self.break_after: dict[str, list[int]] = {}
        """Of a file's path: after how many bytes of an answer it breaks off, each time."""
        self.down = False
        self.hold = threading.Event()
        """While it is clear, files are sent to their middle alone."""
        self.hold.set()
        self.pages = 0
        """Entries of a page of a tree; 0 for all."""
        self.held_from: int | None = None
        """Where it is, if not there."""
        self.ranges = True
        self.content_range = ""
        """What is told of each part, if not which it is."""
        self.elsewhere = ""
        """Where the content of large files is, if not here."""
        self.wrong: set[str] = set()
        """Files of which another byte is sent than there is."""
        self.gated: set[str] = set()
        """Files that are refused, though their repository is shown."""
        self.gone: set[str] = set()
        """Files that are listed, and not there."""
        hub = self

        class Handler(_Handler):
            stand_in = hub

        self._server = LoopbackServer(Handler)
        self.url = self._server.url

    def close(self) -> None:
        self.hold.set()
        self._server.close()

    def commit(self, repo: str) -> str:
        text = json.dumps({path: hashlib.sha256(data).hexdigest() for path, data in self.repos[repo].items()})
        return hashlib.sha1(text.encode()).hexdigest()

    def files(self, repo: str) -> list[RepoFile]:
        found = []
        for path, data in sorted(self.repos[repo].items()):
            lfs = way_of(path, len(data)) == SHA256
            oid = hashlib.sha256(data).hexdigest() if lfs else git_oid(data)
            found.append(RepoFile(path, len(data), oid, lfs=lfs))
        return found


class _Handler(QuietHandler):
    stand_in: StandIn

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.stand_in
        hub.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        if hub.down:
            self._answer(503, b"down")
            return
        if (
            hub.token
            and self.headers.get("Authorization") != f"Bearer {hub.token}"
            and not self.path.startswith("/cdn/")
        ):
            self._answer(401, b"no", {"X-Error-Code": "GatedRepo", "X-Error-Message": "it is gated"})
            return
        if self.path.startswith("/cdn/"):
            _, _, repo, path = unquote(urlsplit(self.path).path).split("|", 3)
            self._file(repo, path)
            return
        route = parse(self.path)
        if route is None or route.name not in hub.repos:
            self._answer(404 if route is None else 401, b"none", {"X-Error-Code": "RepoNotFound"})
            return
        commit = hub.commit(route.name)
        if route.revision not in {"main", "v1", commit}:
            self._answer(404, b"none", {"X-Error-Code": "RevisionNotFound"})
            return
        files = hub.files(route.name)
        if route.verb == "info":
            self._json(info(route.repo, commit, files, 1.7e9))
        elif route.verb == "tree":
            self._tree(tree(files, route.path, recursive=True))
        elif route.verb == "resolve" and route.path in hub.repos[route.name].keys() - hub.gone:
            if route.path in hub.gated:
                self._answer(403, b"no", {"X-Error-Code": "GatedRepo", "X-Error-Message": "it is gated"})
                return
            self._resolve(route.name, next(f for f in files if f.path == route.path), commit)
        else:
            self._answer(404, b"none", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})

    def _tree(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            entry["xetHash"] = "e" * 64
        size = self.stand_in.pages or len(entries)
        first = int(urlsplit(self.path).query.rpartition("cursor=")[2] or 0) if "cursor=" in self.path else 0
        headers = {}
        if first + size < len(entries):
            base = self.path.partition("&cursor=")[0]
            headers["Link"] = f'<{self.stand_in.url}{base}&cursor={first + size}>; rel="next"'
        self._json(entries[first : first + size], headers)

    def _resolve(self, repo: str, file: RepoFile, commit: str) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.oid}"'}
        if not file.lfs:
            self._file(repo, file.path, headers)
            return
        headers |= {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(file.size), "X-Xet-Hash": "e" * 64}
        headers["Link"] = f'<{self.stand_in.url}/api/xet>; rel="xet-auth"'
        # Another host, as its content is elsewhere.
        place = self.stand_in.elsewhere or self.stand_in.url.replace("127.0.0.1", "localhost")
        headers["Location"] = f"{place}/cdn/{quote(f'|x|{repo}|{file.path}')}"
        self._answer(302, b"", headers)

    def _file(self, repo: str, path: str, headers: dict[str, str] | None = None) -> None:
        hub = self.stand_in
        whole = hub.repos[repo][path]
        hub.asked_ranges.append((path, self.headers.get("Range", "")))
        asked = self.headers.get("Range", "") if hub.ranges else ""
        first, _, last = (asked or "bytes=0-")[6:].partition("-")
        begin, stop = int(first), int(last or len(whole) - 1) + 1
        data = memoryview(whole)[begin:stop]
        part = hub.content_range or f"bytes {begin}-{begin + len(data) - 1}/{len(whole)}"
        more = {"Content-Range": part} if asked else {}
        self.send_response(206 if asked else 200)
        for name, value in {**(headers or {}), **more, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if len(data) == 1 < len(whole):  # somebody looks whether parts are given out
            self.wfile.write(data)
            return
        left = hub.break_after.get(path)
        end = left.pop(0) if left else len(data)
        for at in range(0, min(end, len(data)), SLICE):
            if begin + at >= (len(whole) // 2 if hub.held_from is None else hub.held_from):
                hub.hold.wait(60)
            piece = bytearray(data[at : min(at + SLICE, end)])
            if path in hub.wrong and begin + at == 0:
                piece[0] ^= 1
            self.wfile.write(piece)
            hub.sent[path] += len(piece)
        if end < len(data):
            self.close_connection = True
            self.wfile.flush()
            self.connection.close()

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(200, json.dumps(value).encode(), headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
