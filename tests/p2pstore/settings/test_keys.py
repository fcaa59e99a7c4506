from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.settings.keys import KEYS, SECRETS, TRANSPORTS, parse_address, parse_chunk_size

BASE = Path("/base")


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("home", "state", Path("/base/state")),
        ("home", "../state/.", Path("/state")),
        ("home", "/elsewhere", Path("/elsewhere")),
        ("home", Path("state"), Path("/base/state")),
        ("insecure", True, True),
        ("insecure", "Yes", True),
        ("insecure", 0, False),
        ("insecure", "", False),
        ("lease_ttl", 2, 2),
        ("lease_ttl", "3600", 3600),
        ("connections", "64", 64),
        ("chunk_size", 4 << 20, 4 << 20),
        ("chunk_size", "4MiB", 4 << 20),
        ("upload_limit", "500MB/s", 500_000_000),
        ("download_limit", 0, 0),
        ("listen", "[::1]:80", "[::1]:80"),
        ("listen", "ib0:7300", "ib0:7300"),
        ("listen", "10.0.0.0/24:7300", "10.0.0.0/24:7300"),
        ("advertise", "[fd00::1]", "fd00::1"),
        ("advertise", "eth0", "eth0"),
        ("transport", "local", "local"),
        ("zone", "rack 7", "rack 7"),
        ("master_listen", ":50051", "127.0.0.1:50051"),
        ("master_listen", "10.0.0.0/24", "10.0.0.0/24:50051"),
        ("master_metrics", "[::1]", "[::1]:9003"),
        ("master_allow", "10.0.0.0/8, ::1", "10.0.0.0/8, ::1"),
        ("master_lease", 5, 5.0),
        ("master_lease", 0.5, 0.5),
        ("master_lease", "500ms", 0.5),
        ("master_soft_pin", "30m", 1800.0),
        ("master_max_soft_pin", "24 h", 86400.0),
        ("master_watermark", "0.95", 0.95),
        ("master_eviction_ratio", 1, 1.0),
    ],
)
def test_what_a_value_means(key: str, value: object, read: object) -> None:
    assert KEYS[key].read(value, BASE) == read


def test_a_home_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert KEYS["secret_file"].read("~/secret", BASE) == Path("/home/me/secret")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("chunk_size", 0, "'0' is not a power of two"),
        ("lease_ttl", "soon", "'soon' is not a whole number"),
        ("lease_ttl", "9" * 5000, "is not a whole number"),
        ("lease_ttl", 1, "1 is not between 2 and 3600"),
        ("lease_ttl", 3601, "3601 is not between 2 and 3600"),
        ("connections", 65, "65 is not between 1 and 64"),
        ("connections", True, "'true' is not a whole number"),
        ("insecure", "perhaps", "neither true nor false"),
        ("zone", [1], "a list cannot be zone"),
        ("zone", 1.5, "a float cannot be zone"),
        ("zone", None, "a NoneType cannot be zone"),
        ("zone", " ", "it is empty"),
        ("zone", "a\0b", "it has a NUL"),
        ("home", "", "it is empty"),
        ("home", "a\0b", "it has a NUL"),
        ("hash", "md5", "'md5' is none of xxh3_128, blake3"),
        ("transport", "pigeon", "is none of auto, rdma, tcp, local"),
        ("node", "a/b", "bad name 'a/b'"),
        ("listen", "1.2.3.4:x", "is not a port"),
        ("listen", "10.0.0.1 fd00::1:7400", "is no place to listen; write ADDRESS"),
        ("listen", "10.0.0.0/33", "is no place to listen"),
        ("advertise", "a b", "is no place to listen"),
        ("advertise", "10.0.0.1:7300", "has a port; others are told the ports that are listened on"),
        ("advertise", "0.0.0.0", "stands for all addresses, and nobody can connect to it"),
        ("advertise", "[::]", "stands for all addresses"),
        ("metadata", "etcd://u:p@h", "a user or password has no place in a URL"),
        ("upload_limit", "fast", "'fast'"),
        ("master_listen", "::1:x:", "is no place to listen"),
        ("master_allow", "10.0.0.0/8,nobody", "'nobody' is neither an address nor a network"),
        ("master_allow", ",", "it is empty"),
        ("master_tenant_quotas", "a", "'a' is no quota; write a tenant's like NAME=10GiB"),
        ("master_tenant_quotas", "=1", "'=1' is no quota"),
        ("master_tenant_quotas", "a=0", "'a=0' leaves the tenant nothing"),
        ("master_tenant_quotas", "a=much", "'much'"),
        ("master_tenant_quotas", " , ", "it is empty"),
        ("master_lease", "soon", "'soon' is no time; write it like 10s, 500ms, 30m or 24h"),
        ("master_lease", "nan", "is no time"),
        ("master_lease", "8000h", "is not between 0 s and 604800 s"),
        ("master_client_ttl", 0.5, "'0.5' is not between 1 s"),
        ("master_watermark", "90", "'90' is no share; write one above 0, up to 1"),
        ("master_watermark", "nan", "is no share"),
        ("master_eviction_ratio", 0.0, "is no share"),
        ("master_allocation", "best", "is none of random, free_ratio_first, local_first"),
    ],
)
def test_what_means_nothing_is_refused_with_a_sentence(key: str, value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        KEYS[key].read(value, BASE)


PLAIN = {
    "insecure",
    "lease_ttl",
    "chunk_size",
    "connections",
    "upload_limit",
    "download_limit",
    "cache_quota",
    "cache_high",
    "cache_low",
    "log_size",
} | {
    f"master_{name}"
    for name in (
        "insecure",
        "lease",
        "soft_pin",
        "max_soft_pin",
        "evict_soft_pinned",
        "watermark",
        "eviction_ratio",
        "client_ttl",
        "put_discard",
        "put_release",
        "tenants",
        "offload",
        "offload_on_evict",
        "promotion",
        "max_keys",
    )
}
"""Keys whose values are numbers, or true or false."""


@pytest.mark.parametrize("name", sorted(KEYS.keys() - PLAIN))
@pytest.mark.parametrize(("value", "shown"), [(5, "5"), (True, "true"), (False, "false")])
def test_a_text_is_written_in_quotes(name: str, value: object, shown: str) -> None:
    with pytest.raises(ValueError, match=f"^it is a text; write it in quotes, not as {shown}$"):
        KEYS[name].read(value, BASE)


@pytest.mark.parametrize("name", KEYS)
@given(value=st.text(max_size=12) | st.integers() | st.booleans() | st.floats() | st.none() | st.lists(st.integers()))
def test_any_value_is_understood_or_a_value_error(name: str, value: object) -> None:
    with contextlib.suppress(ValueError):
        KEYS[name].read(value, BASE)


@pytest.mark.parametrize("name", KEYS)
def test_a_default_is_a_value_that_the_key_reads(name: str) -> None:
    key = KEYS[name]
    if key.default is not None:
        assert key.read(key.default, BASE) == key.default
    assert key.help
    assert not key.help.endswith(".")


def test_what_a_key_is_called_elsewhere() -> None:
    assert (KEYS["lease_ttl"].variable, KEYS["lease_ttl"].option) == ("MOONCAKE_LEASE_TTL", "--lease-ttl")


def test_a_secret_is_no_key_but_its_file_is() -> None:
    for secret, (variable, file_key) in SECRETS.items():
        assert secret not in KEYS
        assert file_key in KEYS
        assert variable not in {key.variable for key in KEYS.values()}


def test_auto_tries_whatever_can_be_chosen_the_best_first() -> None:
    assert TRANSPORTS["auto"] == ("local", "rdma", "tcp")
    assert set(TRANSPORTS) - {"auto"} == set(TRANSPORTS["auto"])
    assert all(TRANSPORTS[name] == (name,) for name in TRANSPORTS["auto"])


@pytest.mark.parametrize(("text", "size"), [("1MiB", 1 << 20), ("64m", 64 << 20), ("4194304", 4 << 20)])
def test_chunk_sizes_are_read(text: str, size: int) -> None:
    assert parse_chunk_size(text) == size


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("0", "1MiB"), ("1k", "1MiB"), ("4MB", "4MiB"), ("5m", "4MiB"), ("7m", "8MiB"), ("63m", "64MiB"), ("1g", "64MiB")],
)
def test_other_chunk_sizes_are_refused_with_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"; {nearest} is the nearest"):
        parse_chunk_size(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", ("host", 5)),
        ("host:80", ("host", 80)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("::1", ("::1", 5)),
        ("[::1]", ("::1", 5)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, 5) == address


@given(st.text(alphabet="a:[]1/ .", max_size=8))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, port = parse_address(text)
    except ValueError:
        return
    assert host
    assert 0 <= port <= 65535


@given(st.integers(0, 1 << 31))
def test_a_chunk_is_a_power_of_two_of_mebibytes(size: int) -> None:
    good = size in {1 << shift for shift in range(20, 27)}
    if good:
        assert parse_chunk_size(str(size)) == size
    else:
        with pytest.raises(ValueError, match="is not a power of two between 1MiB and 64MiB"):
            parse_chunk_size(str(size))
