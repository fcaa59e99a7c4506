"""Asking a master over its metrics port: ours, what is none, and nobody. Upstream's is asked in ``tests/interop``."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from p2pstore.errors import UsageError
from p2pstore.kv.errors import KeyNotFound, MasterIsUpstreams, MasterRefused, MasterUnavailable
from p2pstore.kv.master import admin_client
from p2pstore.kv.master.admin_client import AdminClient
from tests.p2pstore.kv.master.table import KEY, STRANGE, Served, Table
from tests.ports import closed_port


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def client(table: Table) -> Iterator[AdminClient]:
    served = Served(table)
    yield AdminClient(served.address)
    served.close()


def test_the_status(client: AdminClient) -> None:
    answer = client.status()
    assert (answer["version"], answer["state"], answer["numbers"]["key_count"]) == ("1", "serving", 3)


def test_keys(client: AdminClient) -> None:
    assert [each["key"] for each in client.keys("")] == [KEY, STRANGE, "only-red"]
    assert [each["key"] for each in client.keys("only")] == ["only-red"]
    assert [each["key"] for each in client.keys(tenant="default", limit=1)] == [KEY]


def test_one_key(client: AdminClient) -> None:
    answer = client.key(STRANGE, "default")
    assert (answer["key"], answer["size"], len(answer["replicas"])) == (STRANGE, 4096, 4)
    with pytest.raises(KeyNotFound):
        client.key("nothing", "default")
    with pytest.raises(KeyNotFound):
        client.key(KEY, "red")
    with pytest.raises(MasterRefused, match="an argument is not allowed"):
        client.key("", "default")


@pytest.mark.parametrize("length", [7900, 8000, 100_000, 3_000_000])
def test_a_key_that_is_too_long_for_a_line_of_http(client: AdminClient, table: Table, length: int) -> None:
    key = "\udcffä" + "x" * length
    table.held["default", key] = table.held["default", STRANGE]
    assert client.key(key, "default")["key"] == key
    assert client.why(key=key, tenant="default")[0]["cause"] == "readable"
    client.remove(key, "default", force=True)
    assert table.removed == [(key, True)]
    with pytest.raises(KeyNotFound):
        client.key(key, "red")


def test_a_prefix_that_is_too_long_is_not_called_a_fault_of_the_master(client: AdminClient) -> None:
    with pytest.raises(UsageError, match="prefix or tenant is too long for the metrics port"):
        next(client.keys(prefix="x" * 10_000))


def test_removing(client: AdminClient, table: Table) -> None:
    with pytest.raises(KeyNotFound):
        client.remove("nothing", "default", force=False)
    with pytest.raises(MasterRefused, match=r"reads the value.*-706"):
        client.remove(STRANGE, "default", force=False)
    client.remove(STRANGE, "default", force=True)
    assert client.remove_all("red", force=False) == 3
    assert client.remove_all(None, force=True) == 3
    assert table.removed == [(STRANGE, True), ("all of red", False), ("all of everybody", True)]


def test_why(client: AdminClient) -> None:
    assert client.why(key=STRANGE, tenant="default")[0]["cause"] == "readable"
    assert client.why(client="10.0.0.9")[0]["cause"] == "no-call"


def test_a_master_that_reads_its_journal_says_so(client: AdminClient, table: Table) -> None:
    table.is_ready = False
    assert client.status()["state"] == "recovering"
    with pytest.raises(MasterRefused, match="cannot be done in this mode"):
        client.key(KEY, "default")
    for ask in (lambda: list(client.keys("")), client.why, lambda: client.remove_all(None, force=True)):
        with pytest.raises(MasterUnavailable):
            ask()


def test_nobody_is_there() -> None:
    port = closed_port()
    with pytest.raises(MasterUnavailable, match=f"127.0.0.1:{port} cannot be used: connection refused"):
        AdminClient(f"127.0.0.1:{port}").status()
    with pytest.raises(MasterUnavailable, match="name"):
        AdminClient("nobody.invalid:9003").status()


@pytest.mark.parametrize("answer", [b"", b"\x15\0\0\0garbage\n" * 9, b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.1 2"])
def test_whoever_answers_is_no_master(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(MasterUnavailable):
            AdminClient(f"127.0.0.1:{listener.getsockname()[1]}").status()
        server.join(60)


def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_client, "ANSWER_SECONDS", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(MasterUnavailable, match="it takes calls, and does not answer in time"),
    ):
        AdminClient(f"127.0.0.1:{listener.getsockname()[1]}").status()


@pytest.mark.parametrize(
    "answer",
    [
        b'Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{"key": "abcdef"}\r\n',
        b'Content-Type: application/x-ndjson\r\nContent-Length: 40\r\n\r\n{"key": "abcdef"}\n',
    ],
    ids=["chunks", "length"],
)
def test_a_list_that_breaks_off_is_not_taken_for_whole(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + answer)

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(MasterUnavailable, match="it broke off in the middle of its answer"):
            list(AdminClient(f"127.0.0.1:{listener.getsockname()[1]}").keys())
        server.join(60)


FOUND = {"size_": 5, "buffer_address_": 16, "protocol_": "tcp", "transport_endpoint_": "h:1"}
UPSTREAM = {
    "/health": ("application/json", json.dumps({"role": "leader", "ha_state": "serving", "service_ready": True})),
    "/get_segments_detail": ("application/json", json.dumps({"total_segments": 0, "segments": []})),
    "/metrics": ("text/plain", '# HELP x\nmaster_key_count 7\nsegment_x{a="b"} 1\nvalid_get_nums_ 3\n'),
    "/get_all_keys": ("text/plain", "b\nab\na\n"),
    "/batch_query_keys?keys=a%2Fb": (
        "application/json",
        json.dumps({"data": {"a/b": {"ok": True, "values": [FOUND]}}}),
    ),
    "/batch_query_keys?keys=none": ("application/json", json.dumps({"data": {"none": {"ok": False}}})),
}


class Upstream(http.server.BaseHTTPRequestHandler):
    """Upstream's paths, as far as they are asked."""

    def do_GET(self) -> None:
        kind, text = UPSTREAM.get(self.path, ("", "404 Not Found"))
        self.send_response(200 if kind else 404)
        if kind:
            self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())

    do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_upstreams_master_is_understood_as_far_as_it_answers() -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        client = AdminClient(f"127.0.0.1:{server.server_port}")
        answer = client.status()
        assert (answer["version"], answer["state"]) == (None, "serving")
        assert answer["numbers"] == {"key_count": 7, "valid_get_nums": 3}
        assert list(client.keys("a")) == [{"key": "ab"}, {"key": "a"}]
        assert list(client.keys("a", limit=1)) == [{"key": "ab"}]
        found = client.key("a/b", "default")
        assert (found["size"], found["replicas"][0]["endpoint"]) == (5, "h:1")
        with pytest.raises(KeyNotFound):
            client.key("none", "default")
        with pytest.raises(MasterIsUpstreams, match="a key with a comma"):
            client.key("a,b", "default")
        with pytest.raises(MasterIsUpstreams, match="cannot say why"):
            client.why()
        with pytest.raises(MasterIsUpstreams, match="cannot remove one key"):
            client.remove("a", "default", force=True)
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()
