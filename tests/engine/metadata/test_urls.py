from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.settings import EngineSettings
from engine.engine import TransferEngine
from engine.errors import BadConfig
from engine.metadata.handshake import HandshakeDirectory
from engine.metadata.stored import StoredDirectory
from engine.metadata.urls import MAX_ENDPOINTS, etcd_endpoints, open_directory, open_store

PLAIN = EngineSettings()


@pytest.mark.parametrize(
    ("url", "client"),
    [
        ("http://h:1/metadata", "HttpStore"),
        ("https://h", "HttpStore"),
        ("redis://h", "RedisStore"),
        ("etcd://h:1,i", "EtcdValues"),
        ("etcds://h", "EtcdValues"),
        ("h:2379;i:2379", "EtcdValues"),
    ],
)
def test_a_scheme_is_a_client(url: str, client: str) -> None:
    if client == "RedisStore":
        pytest.importorskip("redis")
    with contextlib.closing(open_store(url, PLAIN)) as store:
        assert (type(store).__name__, store.url) == (client, url)
    with contextlib.closing(open_directory(f" {url}\n", PLAIN)) as directory:
        assert isinstance(directory, StoredDirectory)
        assert directory.url == url


def test_no_server_at_all() -> None:
    assert isinstance(open_directory(" P2PHANDSHAKE ", PLAIN), HandshakeDirectory)


@pytest.mark.parametrize(
    "bad",
    [
        *("", " ", "ftp://x", "p2phandshake://", "://", "ETCD://h:1"),
        *("etcd://", "etcd://,;", "etcd://u:p@h", "etcd://h:0", "etcd://h:1/path", "etcd://::1:2379"),
        "etcd://" + ",".join(f"h{number}" for number in range(MAX_ENDPOINTS + 1)),
        *("redis://", "redis://u:p@h", "redis://h:x", "redis://h/1"),
        *("http://", "http://h:99999/metadata", "http://u:p@h/metadata", "http://[::1", "http:///metadata"),
    ],
)
def test_what_is_no_url_is_refused_and_no_password_is_shown(bad: str) -> None:
    with pytest.raises(BadConfig, match=r"^metadata server: ") as caught:
        open_directory(bad, PLAIN)
    assert "p@" not in str(caught.value)


def test_an_engine_says_the_same() -> None:
    with pytest.raises(BadConfig):
        TransferEngine("127.0.0.1", "ftp://x")


def test_endpoints_as_upstream_writes_them() -> None:
    assert etcd_endpoints("a:1,b;[::1]:2") == ["a:1", "b:2379", "[::1]:2"]
    assert etcd_endpoints("a, a:2379 ;a/") == ["a:2379"]


@given(st.text(alphabet="ab:,;[]/@%1. ", max_size=20) | st.text())
def test_any_text_is_endpoints_or_bad(text: str) -> None:
    with contextlib.suppress(BadConfig):
        found = etcd_endpoints(text)
        assert etcd_endpoints(",".join(found)) == found


def test_only_the_chosen_client_is_loaded() -> None:
    code = (
        "import sys\n"
        "from engine.config.settings import EngineSettings\n"
        "from engine.metadata.urls import open_directory\n"
        "for url in ('P2PHANDSHAKE', 'http://127.0.0.1:1'):\n"
        "    open_directory(url, EngineSettings()).close()\n"
        "print(*sorted({'grpc', 'redis', 'google.protobuf'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("\n", "")
