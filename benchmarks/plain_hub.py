"""A directory as a repository of the hub, by a plain file server: what clients of the hub can do at all.

::

    python benchmarks/plain_hub.py DIRECTORY

Prints its URL, and serves until it is ended. Every repository that is asked for is that directory; a file goes from the
page cache to the socket by sendfile, and nothing is hashed: the names by content are made up.
"""

from __future__ import annotations

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from p2pstore.hub.documents import RepoFile, file_headers, info, tree
from p2pstore.hub.routes import parse

COMMIT = "c" * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory: Path

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        route = parse(self.path)
        if route is None:
            self.answer(404)
            return
        files = {name.name: name for name in sorted(self.directory.iterdir())}
        known = [RepoFile(n, p.stat().st_size, hashlib.sha256(n.encode()).hexdigest(), True) for n, p in files.items()]
        if route.verb == "resolve":
            file = next(
                (each for each in known if each.path == unquote(urlsplit(self.path).path).rpartition("/")[2]), None
            )
            if file is None:
                self.answer(404)
                return
            self.answer(200, file.size, file_headers(file, COMMIT))
            if self.command == "GET":
                with files[file.path].open("rb") as stream:
                    self.connection.sendfile(stream)
            return
        told = tree(known, "", recursive=True) if route.verb == "tree" else info(route.repo, COMMIT, known, 1.7e9)
        body = json.dumps(told).encode()
        self.answer(200, len(body), {"Content-Type": "application/json"})
        self.wfile.write(body)

    def answer(self, status: int, size: int = 0, headers: Any = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(size)}.items():
            self.send_header(name, value)
        self.end_headers()


def main() -> None:
    Handler.directory = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
