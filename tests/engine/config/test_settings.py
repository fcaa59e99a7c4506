from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.settings import EngineSettings
from engine.config.variables import PROGRAM_VARIABLES, VARIABLES, concerns
from engine.errors import BadConfig


def load(**environ: str) -> EngineSettings:
    return EngineSettings.load(environ)


def test_without_anything_the_defaults_count() -> None:
    settings = load()
    assert settings == EngineSettings()
    assert settings.ports is None
    assert {origin for _, _, origin in settings.shown()} == {"default"}
    assert not concerns({"PATH": "/bin", "MC_MAX_SGE": "1"})


def test_every_variable_that_sets_a_field_sets_it_and_is_named() -> None:
    texts = {
        "MC_TCP_BIND_ADDRESS": ("10.0.0.1", "10.0.0.1"),
        "MC_MIN_RPC_PORT": ("16000", 16000),
        "MC_MAX_RPC_PORT": ("16010", 16010),
        "MC_HANDSHAKE_CONNECT_TIMEOUT": ("7", 7.0),
        "MC_TCP_LANES_PER_PEER": ("16", 16),
        "MC_REDIS_USERNAME": ("me", "me"),
        "MC_REDIS_PASSWORD": ("hunter2", "hunter2"),
        "MC_REDIS_DB_INDEX": ("3", 3),
        "MC_TCP_STATUS_TIMEOUT_SEC": ("3", 3.0),
        "MC_TCP_PROTO": ("1", 1),
        "MC_FORCE_TCP": ("1", True),
        "MC_IB_PORT": ("2", 2),
        "MC_GID_INDEX": ("3", 3),
        "NCCL_IB_GID_INDEX": ("5", 5),
        "MC_PKEY_INDEX": ("1", 1),
        "MC_MTU": ("2048", 2048),
        "MC_IB_TC": ("106", 106),
        "MC_IB_SL": ("-1", -1),
        "MC_NUM_QP_PER_EP": ("4", 4),
        "MC_MAX_WR": ("8", 8),
        "MC_CUSTOM_TOPO_JSON": ("/x/matrix.json", Path("/x/matrix.json")),
        "MC_SLICE_SIZE": ("65536", 65536),
        "MC_RETRY_CNT": ("1", 1),
        "MC_METADATA_CLUSTER_ID": ("prod/", "prod"),
        "MC_LOG_LEVEL": ("TRACE", "DEBUG"),
        "MOONCAKE_TE_META_DATA_SERVER": ("a:2379;b:2379", "etcd://a:2379;b:2379"),
        "MOONCAKE_LOCAL_HOSTNAME": ("node1", "node1"),
        "MOONCAKE_PROTOCOL": ("rdma", "rdma"),
        "MOONCAKE_DEVICE": ("mlx5_0,mlx5_1", "mlx5_0,mlx5_1"),
    }
    setting = [each for each in (*VARIABLES, *PROGRAM_VARIABLES) if each.field]
    assert {each.name for each in setting} == set(texts)
    for variable in setting:
        text, value = texts[variable.name]
        settings = load(**{variable.name: text})
        assert getattr(settings, variable.field) == value, variable.name
        assert settings.origins == {variable.field: f"environment {variable.name}"}
        assert concerns({variable.name: text})


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("MC_TCP_LANES_PER_PEER", "17", "17 is not between 1 and 16"),
        ("MC_TCP_LANES_PER_PEER", "many", "'many' is not a whole number"),
        ("MC_SLICE_SIZE", "-1", "-1 is not between"),
        ("MC_TCP_BIND_ADDRESS", "node1", "'node1' is no IP address"),
        ("MC_LOG_LEVEL", "LOUD", "'LOUD' is none of TRACE"),
        ("MC_METADATA_CLUSTER_ID", "a/b", "'a/b' is no single part of a key"),
        ("MC_MAX_RPC_PORT", "65536", "65536 is not between 1 and 65535"),
    ],
)
def test_what_makes_no_sense_names_the_variable(name: str, text: str, complaint: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load(**{name: text})
    assert str(caught.value).startswith(f"environment {name}: {complaint}")


def test_a_password_is_not_shown() -> None:
    settings = load(MC_REDIS_PASSWORD="hunter2")
    assert "hunter2" not in repr(settings)
    assert ("redis_password", "set, not shown", "environment MC_REDIS_PASSWORD") in settings.shown()


def test_ports_are_bounded_by_upstreams_defaults_once_one_bound_is_set() -> None:
    assert load(MC_MIN_RPC_PORT="16000").ports == range(16000, 17001)
    assert load(MC_MAX_RPC_PORT="16000").ports == range(15000, 16001)
    assert load(MC_MIN_RPC_PORT="20000").ports == range(20000, 20001)
    assert load(MC_MAX_RPC_PORT="100").ports == range(100, 101)
    with pytest.raises(BadConfig, match="environment MC_MAX_RPC_PORT: there is no port between 9 and 8"):
        load(MC_MIN_RPC_PORT="9", MC_MAX_RPC_PORT="8")


def test_a_variable_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mooncake.json"
    file.write_text('{"local_hostname": "a", "protocol": "rdma", "metadata_server": "etcd://h:1", "device_name": ""}')
    settings = load(MOONCAKE_CONFIG_PATH=str(file), MOONCAKE_LOCAL_HOSTNAME="b")
    assert (settings.local_hostname, settings.origins["local_hostname"]) == ("b", "environment MOONCAKE_LOCAL_HOSTNAME")
    assert (settings.protocol, settings.origins["protocol"]) == ("rdma", f"{file}, protocol")
    assert (settings.metadata_server, settings.device_name) == ("etcd://h:1", None)
    assert settings.file is not None
    assert settings.file.local_hostname == "a"


def test_relative_paths_start_from_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{}")
    environ = {"MOONCAKE_CONFIG_PATH": "m.json", "MC_CUSTOM_TOPO_JSON": "t.json"}
    settings = EngineSettings.load(environ, cwd=tmp_path)
    assert settings.file is not None
    assert (settings.file.file, settings.topology_file) == (tmp_path / "m.json", tmp_path / "t.json")


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"none\.json: it cannot be read"):
        load(MOONCAKE_CONFIG_PATH=str(tmp_path / "none.json"))
