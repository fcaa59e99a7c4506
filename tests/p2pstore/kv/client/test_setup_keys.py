"""What setup is told: both spellings, sizes in any form, and slips that are not passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import UsageError
from p2pstore.kv.client.setup_keys import DEFAULT_MASTER, Setup, size, understood

NEEDED = {"local_hostname": "10.0.0.7", "metadata_server": "P2PHANDSHAKE"}


def test_what_is_left_out_has_upstreams_defaults() -> None:
    assert understood(NEEDED) == Setup(
        "10.0.0.7", "P2PHANDSHAKE", 16 << 20, 16 << 20, "tcp", "", DEFAULT_MASTER, "default", ()
    )


@pytest.mark.parametrize("name", ["master_server_addr", "master_server_address", "mooncake_master_server_addr"])
def test_the_master_has_several_names(name: str) -> None:
    assert understood({**NEEDED, name: "10.0.0.1:50051"}).master_server_addr == "10.0.0.1:50051"


@pytest.mark.parametrize("name", ["rdma_devices", "device_name"])
def test_and_so_have_the_devices(name: str) -> None:
    assert understood({**NEEDED, name: "mlx5_0"}).rdma_devices == "mlx5_0"


def test_two_names_that_say_the_same_are_fine_and_others_contradict() -> None:
    both: dict[str, Any] = {**NEEDED, "device_name": "a", "rdma_devices": "a"}
    assert understood(both).rdma_devices == "a"
    with pytest.raises(UsageError, match="both device_name='a' and rdma_devices='b'"):
        understood({**both, "rdma_devices": "b"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("master_server_adress", "master_server_address"),
        ("local_host_name", "local_hostname"),
        ("global_segment_sise", "global_segment_size"),
        ("protocoll", "protocol"),
        ("device_nam", "device_name"),
    ],
)
def test_a_slip_is_an_error_and_says_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"knows no '{name}'; did you mean '{meant}'"):
        understood({**NEEDED, name: "x"})


def test_what_is_not_ours_is_told_and_passed_over() -> None:
    config = {
        **NEEDED,
        "transfer_timeout": 1,
        "enable_client_http_server": True,
        "ipc_socket_path": "",
        "client_http_port": 9300,
    }
    assert understood(config).ignored == ("transfer_timeout", "enable_client_http_server")


@pytest.mark.parametrize(("value", "on"), [(True, True), ("true", True), (1, True), ("0", False), ("", False)])
def test_values_are_kept_on_disk_where_that_is_switched_on(value: object, *, on: bool) -> None:
    said = understood({**NEEDED, "enable_ssd_offload": value, "ssd_offload_path": "/nvme"})
    assert said.disk == (Path("/nvme") if on else None)
    assert said.ignored == ()


def test_upstream_s_variables_say_where_and_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONCAKE_OFFLOAD_FILE_STORAGE_PATH", "/other")
    monkeypatch.setenv("MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES", "1000000")
    said = understood({**NEEDED, "enable_ssd_offload": True})
    assert (said.disk, said.disk_limit) == (Path("/other"), 1_000_000)


def test_a_disk_needs_a_directory_and_a_switch_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOONCAKE_OFFLOAD_FILE_STORAGE_PATH", raising=False)
    with pytest.raises(UsageError, match="give ssd_offload_path"):
        understood({**NEEDED, "enable_ssd_offload": True})
    with pytest.raises(UsageError, match="'perhaps' is neither true nor false"):
        understood({**NEEDED, "enable_ssd_offload": "perhaps"})


@pytest.mark.parametrize("name", list(NEEDED))
def test_what_is_needed_is_asked_for(name: str) -> None:
    with pytest.raises(UsageError, match=f"setup needs '{name}'"):
        understood({**NEEDED, name: ""})


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [
        (16777216, 16 << 20),
        ("16777216", 16 << 20),
        ("16mb", 16 << 20),
        ("16 MB", 16 << 20),
        ("1.5G", 3 << 29),
        ("7b", 7),
    ],
)
def test_sizes_are_taken_in_any_form(given: int | str, bytes_: int) -> None:
    assert size("s", given) == bytes_


@pytest.mark.parametrize("given", ["50%", "-1", -1, "", "big", "1 XB", None, "1e9"])
def test_what_is_no_size_is_refused(given: object) -> None:
    with pytest.raises(UsageError, match=r"s: .* is not a size"):
        size("s", given)
