"""The client of a Redis server, against one that answers as it is told. ``test_directories`` has a real one."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.errors import BadConfig, MetadataFull, MetadataRefused, MetadataUnhealthy, MooncakeError, PackageMissing
from engine.metadata import redis as ours
from engine.metadata.redis import RedisStore, _answered


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The URL of a server that gives this answer to whatever it is asked; with none it is silent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                while data := sock.recv(1 << 16):
                    # The client may send several commands at once; each begins with the number of its parts.
                    sock.sendall(answer * (data.count(b"\r\n*") + 1))

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture(autouse=True)
def _package() -> None:
    pytest.importorskip("redis", reason="NO REDIS TEST: the package redis is not installed")


@pytest.mark.parametrize(
    "answer",
    [b"-NOAUTH Authentication required.\r\n", b"-NOPERM no permissions\r\n", b"-ERR x\r\n", b"HTTP/1.1 400\r\n"],
)
def test_whatever_a_server_does_not_want_is_a_refusal(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis.retry.sleep", lambda _: None)
    with answering(answer) as url:
        store = RedisStore(url)
        for call in (lambda: store.get("k"), lambda: store.put("k", b""), lambda: store.delete("k")):
            with pytest.raises(MetadataRefused, match=f"metadata server {url} refused"):
                call()
        store.close()
        store.close()


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(PackageMissing, match="needs the package redis") as caught:
        RedisStore("redis://h")
    assert "mooncake-cli[redis]" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["redis://", "redis://h:0", "redis://h:x", "redis://h/1", "redis://::1]", "redis://a..b"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(BadConfig, match=r"is no redis://HOST:PORT"):
        RedisStore(url)


def test_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(BadConfig, match="set MC_REDIS_PASSWORD") as caught:
        RedisStore("redis://me:secret@h")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("h", "h", ours.DEFAULT_PORT), ("h:7/", "h", 7), ("[::1]", "::1", ours.DEFAULT_PORT), ("[::1]:7", "::1", 7)],
)
def test_where_a_url_leads(text: str, host: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import redis

    told: dict[str, object] = {}
    monkeypatch.setattr(redis, "Redis", lambda **given: told.update(given))
    RedisStore(f"redis://{text}", username="", password="p", database=3)
    assert (told["host"], told["port"], told["db"]) == (host, port, 3)
    assert (told["username"], told["password"]) == (None, "p")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", MetadataFull),
        ("READONLY You can't write against a read only replica.", MetadataUnhealthy),
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist", MetadataUnhealthy),
        ("ERR DB index is out of range", MetadataRefused),
    ],
)
def test_what_it_answers_says_whose_fault_it_is(text: str, error: type[MooncakeError]) -> None:
    found = _answered("redis://h:1", text)
    assert type(found) is error
    assert text in str(found)
