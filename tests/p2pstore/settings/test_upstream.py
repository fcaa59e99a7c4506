from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pstore.errors import BadConfig
from p2pstore.settings.settings import Settings
from p2pstore.settings.upstream import host_of

V02 = {
    "prefill_url": "10.0.0.1:13003",
    "metadata_server": "10.0.0.2:2379",
    "metadata_backend": "etcd",
    "protocol": "tcp",
}


@pytest.fixture
def load(tmp_path: Path):
    (tmp_path / "work").mkdir()
    system = tmp_path / "etc" / "config.toml"
    system.parent.mkdir()

    def load(
        document: object = None, flags: dict[str, object] | None = None, toml: str = "", **environ: str
    ) -> Settings:
        environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), **environ}
        if document is not None:
            (tmp_path / "mooncake.json").write_text(document if isinstance(document, str) else json.dumps(document))
            environ["MOONCAKE_CONFIG_PATH"] = str(tmp_path / "mooncake.json")
        system.write_text(toml)
        return Settings.load(flags, environ=environ, cwd=tmp_path / "work", system=system)

    return load


def test_mooncake_json_names_etcd_the_protocol_and_this_machine(load, tmp_path: Path) -> None:
    file = tmp_path / "mooncake.json"
    document = {"local_hostname": "10.0.0.9:12001", "metadata_server": "etcd://10.0.0.2:2379", "protocol": "tcp"}
    settings = load(document, {"listen": "0.0.0.0"})
    assert (settings.metadata, settings.origins["metadata"]) == ("etcd://10.0.0.2:2379", f"{file}, metadata_server")
    assert (settings.transport, settings.origins["transport"]) == ("tcp", f"{file}, protocol")
    assert (settings.advertise, settings.origins["advertise"]) == ("10.0.0.9", f"{file}, local_hostname")


def test_the_first_generation_too(load) -> None:
    settings = load(V02)
    assert (settings.metadata, settings.transport, settings.advertise) == ("etcd://10.0.0.2:2379", "tcp", None)


@pytest.mark.parametrize("server", ["P2PHANDSHAKE", "http://h:8080/metadata", "redis://h:6379", ""])
def test_a_server_that_holds_no_records_of_ours_is_none_for_us(load, server: str) -> None:
    settings = load({"metadata_server": server})
    assert (settings.metadata, settings.origins["metadata"]) == (None, "default")


def test_rdma_takes_what_works_and_what_is_unknown_says_nothing(load, tmp_path: Path) -> None:
    settings = load({"protocol": "rdma"})
    assert (settings.transport, settings.origins["transport"]) == ("auto", f"{tmp_path / 'mooncake.json'}, protocol")
    assert load({"protocol": "ascend"}).origins["transport"] == "default"


def test_the_order_of_all_sources(load, tmp_path: Path) -> None:
    document = {"metadata_server": "etcd://json:1"}
    program = {"MOONCAKE_TE_META_DATA_SERVER": "etcd://program:1"}
    toml = 'metadata = "etcd://file:1"'
    assert load(document).metadata == "etcd://json:1"
    settings = load(document, toml=toml)
    assert (settings.metadata, settings.origins["metadata"]) == ("etcd://file:1", str(tmp_path / "etc" / "config.toml"))
    settings = load(document, toml=toml, **program)
    assert (settings.metadata, settings.origins["metadata"]) == (
        "etcd://program:1", "environment MOONCAKE_TE_META_DATA_SERVER",
    )  # fmt: skip
    settings = load(document, toml=toml, **program, MOONCAKE_METADATA="etcd://ours:1")
    assert (settings.metadata, settings.origins["metadata"]) == ("etcd://ours:1", "environment MOONCAKE_METADATA")
    settings = load(document, {"metadata": "etcd://flag:1"}, toml, **program, MOONCAKE_METADATA="etcd://ours:1")
    assert (settings.metadata, settings.origins["metadata"]) == ("etcd://flag:1", "option --metadata")


def test_variables_of_the_engine(load) -> None:
    settings = load({"protocol": "rdma"}, MC_FORCE_TCP="1", MC_TCP_LANES_PER_PEER="8", toml="connections = 3")
    assert (settings.transport, settings.origins["transport"]) == ("tcp", "environment MC_FORCE_TCP")
    assert (settings.connections, settings.origins["connections"]) == (8, "environment MC_TCP_LANES_PER_PEER")
    assert load(MC_TCP_LANES_PER_PEER="8", MOONCAKE_CONNECTIONS="3").connections == 3


def test_others_are_told_of_an_address_only_where_somebody_listens(load) -> None:
    listening = load(None, {"listen": "0.0.0.0:7300"}, MC_TCP_BIND_ADDRESS="10.0.0.9")
    assert (listening.advertise, listening.origins["advertise"]) == ("10.0.0.9", "environment MC_TCP_BIND_ADDRESS")
    for settings in (load(MC_TCP_BIND_ADDRESS="10.0.0.9"), load({"local_hostname": "10.0.0.9"})):
        assert (settings.advertise, settings.origins["advertise"]) == (None, "default")
    # Our own setting is taken at its word.
    assert load(MOONCAKE_ADVERTISE="10.0.0.9").advertise == "10.0.0.9"
    # "localhost", the default of many a mooncake.json, tells others nothing.
    assert load({"local_hostname": "localhost:12001"}, {"listen": "0.0.0.0"}).advertise is None


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("{", "mooncake.json: it is not JSON"),
        ({"metadata_server": "etcd://h:x"}, "mooncake.json, metadata_server: 'h:x' is no HOST:PORT"),
        ({"metadata_server": "etcd://me:hunter2@h"}, "mooncake.json, metadata_server: a user or password"),
        ({"protocol": []}, "mooncake.json, protocol: [] is no text"),
    ],
)
def test_a_malformed_file_is_named(load, document: object, complaint: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load(document)
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_bad_variable_is_named(load) -> None:
    with pytest.raises(BadConfig, match="environment MC_TCP_LANES_PER_PEER: 99 is not between 1 and 16"):
        load(MC_TCP_LANES_PER_PEER="99")


def test_another_process_comes_to_the_same_settings(load, tmp_path: Path) -> None:
    settings = load({**V02, "protocol": "rdma"}, MC_TCP_LANES_PER_PEER="8")
    environ = settings.environment({"XDG_CONFIG_HOME": str(tmp_path / "config")})
    again = Settings.load(environ=environ, cwd=tmp_path, system=tmp_path / "none")
    assert (again.metadata, again.transport, again.connections) == (settings.metadata, "auto", 8)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("node1", "node1"),
        ("node1:12001", "node1"),
        ("10.0.0.1:1", "10.0.0.1"),
        ("[fd00::1]:1", "fd00::1"),
        ("fd00::1", "fd00::1"),
        ("a:b", "a:b"),
    ],
)
def test_the_host_of_a_name(name: str, host: str) -> None:
    assert host_of(name) == host
