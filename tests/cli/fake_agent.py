"""A test double of the agent: a real HTTP server on a real Unix socket that answers what a test tells it to.

It knows the routes and shapes of the agent's API and nothing behind them. It keeps what it was asked.
"""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import threading
import time
from pathlib import Path
from typing import Any

from p2pstore.agent.home import Home, socket_address
from p2pstore.errors import MooncakeError, to_wire

MIB = 1 << 20
DIGEST = "3f786850e387550fdab836ed7e6dc881de23001b3f786850e387550fdab836ed"

OBJECT = {
    "name": "models/llama",
    "manifest": DIGEST,
    "size": 10 * MIB + 5,
    "chunk_size": MIB,
    "chunks": 11,
    "files": 2,
    "created": "2026-08-22T10:00:00Z",
    "creator": "alpha",
    "complete": 2,
    "partial": 1,
}


def status_answer(home: Home) -> dict[str, Any]:
    return {
        "node": "alpha",
        "pid": os.getpid(),
        "home": str(home.root),
        "version": "0.1.0",
        "metadata": "etcd://127.0.0.1:2379",
        "metadata_ok": True,
        "control": "127.0.0.1:7301",
        "data": "127.0.0.1:7302",
        "rpc": "127.0.0.1:7303",
        "listen": "127.0.0.1",
        "uptime": 75.0,
        "objects": 2,
        "serving_bytes": 3 * MIB,
        "gets": 0,
        "tasks": [task_answer("lease keeper"), task_answer("source watcher")],
    }


def task_answer(name: str, **changes: Any) -> dict[str, Any]:
    answer = {
        "name": name,
        "owner": "node",
        "policy": "restart",
        "state": "running",
        "failures": 0,
        "last_error": "",
        "last_failure": None,
    }
    return {**answer, **changes}


def info_answer(**changes: Any) -> dict[str, Any]:
    answer = {
        "name": OBJECT["name"],
        "manifest": DIGEST,
        "size": OBJECT["size"],
        "chunk_size": MIB,
        "chunks": 11,
        "hash": "xxh3_128",
        "created": OBJECT["created"],
        "creator": "alpha",
        "kind": "directory",
        "files": [
            {"path": "config.json", "size": 5, "mode": 0o644, "chunks": 1},
            {"path": "model.safetensors", "size": 10 * MIB, "mode": 0o644, "chunks": 10},
        ],
        "banned": [],
        "replicas": [
            {
                "node": "alpha",
                "state": "complete",
                "role": "gold",
                "chunks": 11,
                "of": 11,
                "address": "127.0.0.1:7301",
                "reachable": True,
            },
            {
                "node": "beta",
                "state": "partial",
                "role": "replica",
                "chunks": 4,
                "of": 11,
                "address": "127.0.0.1:8301",
                "reachable": False,
            },
        ],
    }
    return {**answer, **changes}


def register_result(**changes: Any) -> dict[str, Any]:
    result = {
        "event": "result",
        "name": "models/llama",
        "manifest": DIGEST,
        "size": OBJECT["size"],
        "chunk_size": MIB,
        "chunks": 11,
        "files": 2,
        "seconds": 2.0,
    }
    return {**result, **changes}


def get_result(**changes: Any) -> dict[str, Any]:
    result = {
        "event": "result",
        "name": "models/llama",
        "manifest": DIGEST,
        "dest": "/data/llama",
        "size": 10 * MIB,
        "bytes_pulled": 8 * MIB,
        "bytes_reused": 2 * MIB,
        "seconds": 2.0,
        "transport": "tcp",
        "peers": {"alpha": 5 * MIB, "beta": 3 * MIB},
        "seeding": True,
        "dry_run": False,
    }
    return {**result, **changes}


def progress(done: int, total: int, **more: Any) -> dict[str, Any]:
    return {"event": "progress", "done": done, "total": total, **more}


class FakeAgent:
    """``answers`` maps "METHOD /path" to a document, an error, a list of events, or raw bytes."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.answers: dict[str, Any] = {"GET /v1/status": status_answer(home)}
        self.requests: list[tuple[str, str, Any]] = []
        self.cancelled = threading.Event()
        self.delay = 0.0
        home.create()
        with socket_address(home.socket) as address:
            self._server = _Server(address, _Handler)
        self._server.agent = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def body_of(self, route: str) -> Any:
        """What the last call of a route asked for; ``sight_of`` has what it said besides."""
        body = self._last(route)
        return {k: v for k, v in body.items() if k != "sight"} if isinstance(body, dict) else body

    def sight_of(self, route: str) -> Any:
        """What the last call of a route said of the paths that it named."""
        return self._last(route)["sight"]

    def asked(self, path: str) -> bool:
        """Whether a path was asked for."""
        return any(found == path for _, found, _ in self.requests)

    def _last(self, route: str) -> Any:
        return next(body for method, path, body in reversed(self.requests) if f"{method} {path}" == route)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        Path(self.home.socket).unlink(missing_ok=True)


class HangUntilCancelled:
    """As the last event: say nothing more until the client goes away, which it may have done before."""


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    agent: FakeAgent

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *arguments: object) -> None:
        pass

    def address_string(self) -> str:
        return "local"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        agent = self.server.agent
        length = int(self.headers.get("Content-Length", "0"))
        body = json.loads(self.rfile.read(length)) if length else None
        path, _, query = self.path.partition("?")
        agent.requests.append((method, path, body if method == "POST" else query))
        time.sleep(agent.delay)
        answer = agent.answers.get(f"{method} {path}", MooncakeError(detail=f"no answer for {method} {path}"))
        answer = answer(query) if callable(answer) else answer
        if isinstance(answer, bytes):
            self.wfile.write(answer)
            self.close_connection = True
        elif isinstance(answer, list):
            try:
                self._stream(answer)
            except ConnectionError:
                if isinstance(answer[-1], HangUntilCancelled):
                    agent.cancelled.set()
                raise
        elif isinstance(answer, MooncakeError):
            self._document(404, {"error": to_wire(answer)})
        else:
            self._document(200, answer)

    def _document(self, status: int, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: list[Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            if isinstance(event, threading.Event):
                event.wait(60)
                continue
            if isinstance(event, HangUntilCancelled):
                try:
                    gone = self.connection.recv(1) == b""
                except ConnectionError:  # it went with bytes of ours unread
                    gone = True
                if gone:
                    self.server.agent.cancelled.set()
                self.close_connection = True
                return
            failed = isinstance(event, MooncakeError)
            line = json.dumps({"event": "error", "error": to_wire(event)} if failed else event).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
