from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.etcd.credentials import EtcdCredentials
from p2pstore.errors import BadConfig
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.memory import MemoryStore
from p2pstore.metadata.urls import MAX_ENDPOINTS, open_store, parse_url


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("etcd://a:2379", "etcd://a:2379"),
        ("etcd://a", "etcd://a:2379"),
        ("etcd://a:1,b:2;c", "etcd://a:1,b:2,c:2379"),
        (" etcds://10.0.0.1:2379, b/ ", "etcds://10.0.0.1:2379,b:2379"),
        ("etcd://[::1]:5,[fe80::1%eth0]", "etcd://[::1]:5,[fe80::1%eth0]:2379"),
        ("etcd://a:1,a:1,", "etcd://a:1"),
        ("memory://some-name_1.x", "memory://some-name_1.x"),
        ("etcd+unix:///run/user/7/a b@c,d/etcd.sock:1", "etcd+unix:///run/user/7/a b@c,d/etcd.sock:1"),
    ],
)
def test_urls_that_mean_something(text: str, meaning: str) -> None:
    assert str(parse_url(text)) == meaning
    assert str(parse_url(meaning)) == meaning


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty; say etcd://"),
        ("a:2379", "say etcd://"),
        ("P2PHANDSHAKE", "say etcd://"),
        ("http://a:2379", "http:// is not understood"),
        ("redis://a", "redis:// is not understood"),
        ("etcd://", "names no server"),
        ("etcd://,;", "names no server"),
        ("etcd://a:0", "0 is no port"),
        ("etcd://a:65536", "65536 is no port"),
        ("etcd://a:x", "no HOST:PORT"),
        ("etcd://a:2379/path", "no HOST:PORT"),
        ("etcd://::1", "no HOST:PORT"),
        ("etcd://a b", "no HOST:PORT"),
        ("memory://", "takes a name"),
        ("memory://a/b", "takes a name"),
        ("etcd+unix://", "absolute path"),
        ("etcd+unix://here/etcd.sock:1", "absolute path"),
        ("etcd+unix:///here\0", "absolute path"),
        ("etcd://" + ",".join(f"h{i}" for i in range(MAX_ENDPOINTS + 1)), "more than"),
    ],
)
def test_urls_that_mean_nothing_say_why(text: str, reason: str) -> None:
    with pytest.raises(BadConfig, match=reason):
        parse_url(text)


@pytest.mark.parametrize(
    "text", ["etcd://root:hunter2@a:2379", "etcd://hunter2@a", "etcds://b,root:hunter2@a", "hunter2@a"]
)
def test_a_password_in_a_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadConfig, match="MOONCAKE_ETCD_PASSWORD") as caught:
        open_store(text)
    assert "hunter2" not in str(caught.value) + repr(caught.value) + str(caught.value.fields)


def test_credentials_never_show_their_password() -> None:
    credentials = EtcdCredentials(user="root", password="hunter2")
    assert "hunter2" not in repr(credentials) + str(credentials)
    assert "root" in repr(credentials)


async def test_the_store_behind_a_url() -> None:
    etcd, secure, memory = open_store("etcd://a,b:5"), open_store("etcds://a"), open_store("memory://urls")
    assert isinstance(etcd, EtcdStore)
    assert isinstance(memory, MemoryStore)
    assert [store.url for store in (etcd, secure, memory)] == ["etcd://a:2379,b:5", "etcds://a:2379", "memory://urls"]
    for store in (etcd, secure, memory):
        await store.close()


@given(st.text() | st.text().map("etcd://".__add__))
def test_any_text_means_something_or_is_refused(text: str) -> None:
    try:
        parsed = parse_url(text)
    except BadConfig:
        return
    assert parse_url(str(parsed)) == parsed


def test_parsing_a_url_imports_no_grpc() -> None:
    code = "import sys, p2pstore.metadata.urls as u; u.parse_url('etcd://a'); assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
