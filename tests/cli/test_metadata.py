from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from engine.errors import NoSuchAddress
from engine.metadata.kept import Records
from engine.metadata.server import MetadataServer
from mooncake_cli.commands import metadata as module
from tests.cli.conftest import Mooncake


def start(environment: dict[str, str], tmp_path: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A server on a free port, and the URL that it prints."""
    command = [sys.executable, "-m", "mooncake_cli", "metadata", "serve", "--listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    return process.returncode


def ask(url: str, method: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(f"{url}?key=mooncake%2Fram%2Fx", data=body, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def test_serve_keeps_records_in_its_file(environment: dict[str, str], tmp_path: Path) -> None:
    options = ("--store", str(tmp_path / "metadata.db"), "--expire", "3600")
    process, url = start(environment, tmp_path, *options)
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/metadata")
    ask(url, "PUT", b"{}")
    assert end(process) == 0
    process, url = start(environment, tmp_path, *options)
    assert ask(url, "GET") == b"{}"
    assert end(process) == 0


def test_serve_in_memory(environment: dict[str, str], tmp_path: Path) -> None:
    process, url = start(environment, tmp_path)
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, "GET")
    assert caught.value.code == 404
    caught.value.close()
    assert end(process) == 0


def test_serve_keeps_to_loopback(mooncake: Mooncake) -> None:
    done = mooncake("metadata", "serve", "--listen", "0.0.0.0:0")
    assert done.returncode == 7
    assert "--insecure" in done.stderr
    assert "secret" not in done.stderr.lower()  # it knows none


def test_serve_refuses_an_address_that_is_none(mooncake: Mooncake) -> None:
    for bad in ("127.0.0.1:port", ":8080", "127.0.0.1:99999"):
        assert mooncake("metadata", "serve", "--listen", bad).returncode == 2
    assert mooncake("metadata", "serve", "--listen", "127.0.0.1:0", "--store", "/no/such/directory/db").returncode == 8


def test_clients_are_given_an_address_that_they_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_is_plain(host: str) -> str:
        raise NoSuchAddress(address=host, detail="several")

    for listening, told in (
        ("0.0.0.0:8080", "10.0.0.5:8080"),
        ("[::]:80", "10.0.0.5:80"),
        ("[::1]:8080", "[::1]:8080"),
    ):
        server = MetadataServer(Records(None))
        server.address = listening
        monkeypatch.setattr(module, "published", lambda host: host if host == "::1" else "10.0.0.5")
        assert module._url(server) == f"http://{told}/metadata"
        monkeypatch.setattr(module, "published", nothing_is_plain)
        assert module._url(server) == f"http://{listening}/metadata"
