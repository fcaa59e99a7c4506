from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import mooncake_json
from engine.config.mooncake_json import MooncakeJson, parse, parse_size, read, with_scheme
from engine.errors import BadConfig

FILE = Path("/etc/mooncake.json")

V02 = {
    "prefill_url": "192.168.0.1:13003",
    "decode_url": "192.168.0.2:13003",
    "metadata_server": "192.168.0.2:2379",
    "metadata_backend": "etcd",
    "protocol": "rdma",
    "device_name": "erdma_0",
}
V03 = {
    "local_hostname": "node1",
    "metadata_server": "etcd://192.168.0.2:2379",
    "protocol": "tcp",
    "device_name": "",
    "master_server_address": "192.168.0.2:50001",
}
NOW = {
    **V03,
    "metadata_server": "P2PHANDSHAKE",
    "global_segment_size": "4gb",
    "local_buffer_size": 1 << 30,
    "enable_ssd_offload": "true",
    "ssd_offload_path": "/nvme",
    "tenant_id": "default",
    "enable_client_http_server": False,
    "client_http_port": 9300,
}


def test_each_generation_is_understood() -> None:
    first = parse(json.dumps(V02), FILE)
    assert first == MooncakeJson(FILE, **V02)  # type: ignore[arg-type]
    assert first.metadata_url == "etcd://192.168.0.2:2379"
    second = parse(json.dumps(V03), FILE)
    assert (second.local_hostname, second.metadata_url, second.protocol) == (
        "node1", "etcd://192.168.0.2:2379", "tcp",
    )  # fmt: skip
    third = parse(json.dumps(NOW), FILE)
    assert (third.metadata_url, third.global_segment_size, third.local_buffer_size) == (
        "P2PHANDSHAKE",
        4 << 30,
        1 << 30,
    )
    assert (third.enable_ssd_offload, third.enable_client_http_server, third.client_http_port) == (True, False, 9300)
    assert first.global_segment_size is first.tenant_id is second.prefill_url is None


@pytest.mark.parametrize(
    ("server", "backend", "expected"),
    [
        ("h:1", "", "etcd://h:1"),
        ("h:1", "Redis", "redis://h:1"),
        ("h:1/metadata", "http", "http://h:1/metadata"),
        ("http://h:1/metadata", "etcd", "http://h:1/metadata"),
        ("P2PHANDSHAKE", "etcd", "P2PHANDSHAKE"),
        ("h:1", "P2PHANDSHAKE", "P2PHANDSHAKE"),
        ("", "etcd", ""),
    ],
)
def test_a_server_without_a_scheme_gets_that_of_the_backend(server: str, backend: str, expected: str) -> None:
    assert with_scheme(server, backend) == expected


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4gb", 4 << 30),
        ("1.5 GB", 3 << 29),
        ("512m", 512 << 20),
        ("7", 7),
        (" 2k ", 2048),
        ("1tb", 1 << 40),
        (0, 0),
        ("3b", 3),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "gb", "-1", "4 xb", "nan", "1e3", -5, True, None, 1.5, [], "9" * 40])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


def test_an_unknown_key_is_left_to_whose_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="engine.config.mooncake_json"):
        assert parse('{"kv_role": {"x": 1}, "protocol": null}', FILE) == MooncakeJson(FILE)
    assert "key 'kv_role' is not known here" in caplog.text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "/etc/mooncake.json: it is not JSON"),
        ("{", "/etc/mooncake.json: it is not JSON"),
        ("[" * 100_000, "/etc/mooncake.json: it is not JSON"),
        ("[]", "/etc/mooncake.json: a JSON list where an object belongs"),
        ('{"protocol": 1}', "/etc/mooncake.json, protocol: 1 is no text"),
        ('{"global_segment_size": "big"}', "/etc/mooncake.json, global_segment_size: 'big' is no size"),
        ('{"enable_ssd_offload": "perhaps"}', "/etc/mooncake.json, enable_ssd_offload: 'perhaps' is neither"),
        ('{"client_http_port": 70000}', "/etc/mooncake.json, client_http_port: 70000 is no port"),
    ],
)
def test_a_malformed_file_is_named_with_its_key(text: str, complaint: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse(text, FILE)
    assert str(caught.value).startswith(complaint)


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / "mooncake.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(V03).encode())
    assert read(file).local_hostname == "node1"
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(BadConfig, match="is no text"):
        read(file)
    file.write_bytes(b" " * (mooncake_json.MAX_FILE_BYTES + 1))
    with pytest.raises(BadConfig, match="longer than"):
        read(file)
    with pytest.raises(BadConfig, match="cannot be read"):
        read(tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*mooncake_json.KEYS, "other"]), inner),
    )
)
def test_any_json_is_understood_or_refused(data: object) -> None:
    with contextlib.suppress(BadConfig):
        parse(json.dumps(data), FILE)
