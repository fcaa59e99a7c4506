"""The client of an HTTP metadata server, against one that answers as it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engine.errors import BadConfig, MetadataFull, MetadataRefused, MetadataUnavailable, MetadataUnhealthy
from engine.metadata import http
from engine.metadata.http import HttpStore
from tests.ports import closed_port


class Server(ThreadingHTTPServer):
    """Answers each request with ``status`` and ``body``, and notes what it was asked."""

    daemon_threads = True
    status = 200
    body = b"value"
    hang_up = False
    """Close the connection after each answer without saying so."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, bytes]] = []
        self.connections = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/metadata"

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)
        if self.server.hang_up:
            self.close_connection = True

    do_GET = do_PUT = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        """Nothing: it would stand between the tests' dots."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def store(server: Server) -> Iterator[HttpStore]:
    made = HttpStore(server.url)
    yield made
    made.close()


def test_what_the_server_is_asked(server: Server, store: HttpStore) -> None:
    assert store.get("mooncake/ram/a b+ü&c=d") == b"value"
    store.put("k", b"\x00\xff\n")
    store.delete("k")
    assert server.asked == [
        ("GET", "/metadata?key=mooncake%2Fram%2Fa%20b%2B%C3%BC%26c%3Dd", b""),
        ("PUT", "/metadata?key=k", b"\x00\xff\n"),
        ("DELETE", "/metadata?key=k", b""),
    ]
    assert server.connections == 1


def test_a_path_of_its_own_and_none(server: Server) -> None:
    for path in ("/other/place", ""):
        store = HttpStore(server.url.removesuffix("/metadata") + path)
        store.get("k")
        store.close()
    assert [path for _, path, _ in server.asked] == ["/other/place?key=k", "/metadata?key=k"]


def test_absence_is_no_error_but_where_something_was_to_be_stored(server: Server, store: HttpStore) -> None:
    server.status = 404
    assert store.get("k") is None
    store.delete("k")
    with pytest.raises(MetadataRefused, match="status 404 value"):
        store.put("k", b"")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (204, MetadataRefused),
        (301, MetadataRefused),
        (403, MetadataRefused),
        (500, MetadataUnhealthy),
        (503, MetadataUnhealthy),
        (507, MetadataFull),
    ],
)
def test_only_200_is_success(
    server: Server, store: HttpStore, status: int, error: type[MetadataRefused | MetadataUnavailable]
) -> None:
    server.status, server.body = status, b"" if status == 204 else b"why"
    for call in (lambda: store.get("k"), lambda: store.put("k", b""), lambda: store.delete("k")):
        with pytest.raises(error, match=f"status {status}"):
            call()


def test_an_explanation_that_is_no_text_is_left_out(server: Server, store: HttpStore) -> None:
    server.status, server.body = 400, b"\xff"
    with pytest.raises(MetadataRefused, match=r"status 400$"):
        store.get("k")


def test_a_value_that_is_too_large_is_refused(
    server: Server, store: HttpStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_VALUE", 5)
    assert store.get("k") == b"value"
    server.body = b"values"
    with pytest.raises(MetadataRefused, match="a value of more than 5 bytes"):
        store.get("k")
    server.body = b"again"
    assert store.get("k") == b"again"


def test_a_connection_that_was_closed_meanwhile_is_made_again(server: Server, store: HttpStore) -> None:
    server.hang_up = True
    for _ in range(3):
        assert store.get("k") == b"value"
    assert server.connections == 3


def test_a_server_that_is_not_there_and_one_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MetadataUnavailable, match="Connection refused"):
        HttpStore(f"http://127.0.0.1:{closed_port()}").get("k")
    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        store = HttpStore(f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(MetadataUnavailable, match="timed out"):
            store.get("k")
        store.close()


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "",
            "h",
            "ftp://h",
            "http://",
            "http:///metadata",
            "http://[::1",
            "http://h:x",
            "http://h:0",
            "http://h:65536",
        ),
        *("http://a..b", "http://" + "x" * 64, "http://a b", "http://h/a b", "http://h/ü", "http://h/\x00"),
    ],
)
def test_what_is_no_url(bad: str) -> None:
    with pytest.raises(BadConfig, match=r"is no http://HOST:PORT/metadata"):
        HttpStore(bad)


@pytest.mark.parametrize("url", ["http://me:secret@h/metadata", "https://me:secret@h:99999"])
def test_a_password_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(BadConfig, match="a password has no place in a URL") as caught:
        HttpStore(url)
    assert "secret" not in str(caught.value)
