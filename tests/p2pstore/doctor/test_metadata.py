"""Every endpoint of the metadata server: one that answers, one that is dead, one that is something else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.etcd.credentials import EtcdCredentials
from p2pstore.agent.embedded_etcd import EmbeddedEtcd
from p2pstore.doctor.metadata import check_metadata, clock
from p2pstore.peers.checks import exit_code
from tests.p2pstore.metadata.servers import EtcdServer, any_binary


@contextlib.contextmanager
def server(body: bytes, date: str | None = None) -> Iterator[str]:
    """The address of an HTTP server that answers everything with ``body``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", date or formatdate(usegmt=True))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{found.server_address[1]}"
    finally:
        found.shutdown()
        found.server_close()


async def test_the_etcd_of_an_agent(tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(tmp_path / "etcd")
    url = await etcd.start()
    try:
        checks = await asyncio.to_thread(lambda: list(check_metadata(url, EtcdCredentials(), own=True)))
    finally:
        await etcd.stop()
    assert [c.verdict for c in checks] == ["ok", "ok", "ok"], checks
    assert "version 3." in checks[0].detail
    gone = await asyncio.to_thread(lambda: list(check_metadata(url, EtcdCredentials(), own=True)))
    assert gone[0].verdict == "failed"
    assert gone[0].detail.startswith("it does not answer: ")
    assert exit_code(gone) == 6


async def test_a_real_etcd(tmp_path: Path) -> None:
    etcd = EtcdServer(any_binary(), tmp_path).start()
    try:
        checks = await asyncio.to_thread(lambda: list(check_metadata(etcd.url, EtcdCredentials())))
        dead = f"{etcd.url},127.0.0.1:1"
        half = await asyncio.to_thread(lambda: list(check_metadata(dead, EtcdCredentials())))
    finally:
        etcd.close()
    version, *others = checks
    assert version.verdict in {"ok", "warning"}, "whichever release this machine has"
    assert "version 3." in version.detail
    assert [c.verdict for c in others] == ["ok", "ok"], checks
    assert [c.subject for c in half if c.verdict == "failed"] == ["etcd 127.0.0.1:1"]
    assert exit_code(half) == 6
    assert half[-1].verdict == "ok", "the other endpoint is enough to read"


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = list(check_metadata("etcd://127.0.0.1:1", EtcdCredentials()))
    assert [c.verdict for c in checks] == ["failed", "failed"]
    assert "connection refused" in checks[0].detail
    assert all(c.advice for c in checks)


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b"{}", b"null"])
def test_what_is_no_etcd(body: bytes) -> None:
    with server(body) as address:
        first = next(iter(check_metadata(f"etcd://{address}", EtcdCredentials())))
    assert (first.verdict, first.code) == ("failed", 6)
    assert "no etcd" in first.detail


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("3.4.21", "warning"),
        ("3.4.22", "ok"),
        ("3.5.5", "warning"),
        ("3.5.6", "ok"),
        ("3.6.0", "ok"),
        ("3.3.27", "warning"),
        ("new", "warning"),
    ],
)
def test_versions(version: str, verdict: str) -> None:
    with server(b'{"etcdserver":"%s","etcdcluster":"3.5.0"}' % version.encode()) as address:
        first = next(iter(check_metadata(f"etcd://{address}", EtcdCredentials())))
    assert first.verdict == verdict, first


def test_clocks() -> None:
    now = time.time()
    (same,) = clock("x", formatdate(now, usegmt=True), now, 0.01)
    assert same.verdict == "ok"
    (ahead,) = clock("x", formatdate(now + 100, usegmt=True), now, 0.01)
    assert (ahead.verdict, "ahead of" in ahead.detail) == ("warning", True)
    (behind,) = clock("x", formatdate(now - 100, usegmt=True), now, 0.01)
    assert "behind" in behind.detail
    assert list(clock("x", "", now, 0.01)) == []
    assert list(clock("x", "yesterday", now, 0.01)) == []
