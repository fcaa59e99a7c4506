"""From settings to a node's options; a node that was given no name keeps the one that it made up."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from p2pstore.agent.home import Home
from p2pstore.agent.options import (
    MAX_HOST_PART,
    credentials,
    node_name,
    node_options,
    remembered_name,
    secret_for,
)
from p2pstore.agent.own_secret import own_secret
from p2pstore.errors import BadConfig
from p2pstore.objects.names import check_node_name
from p2pstore.settings.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home.resolve(tmp_path / "home")
    made.create()
    return made


@pytest.mark.parametrize("host", ["gpu-7", "", "a host.with/odd characters", "x" * 300])
def test_any_hosts_name_makes_a_nodes_name(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    name = node_name()
    assert check_node_name(name) == name
    assert len(name) <= MAX_HOST_PART + 5


def test_a_name_is_made_up_once(home: Home) -> None:
    name = remembered_name(home)
    assert remembered_name(home) == name
    assert remembered_name(Home.resolve(home.root)) == name


def test_what_was_set_reaches_the_node(home: Home, tmp_path: Path) -> None:
    settings = Settings.load(
        {"node": "n1", "listen": "127.0.0.2:7400"},
        environ={"MOONCAKE_LEASE_TTL": "7", "MOONCAKE_ZONE": "z", "HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    options = node_options(home, settings)
    assert (options.name, options.host, options.port, options.ttl, options.zone) == ("n1", "127.0.0.2", 7400, 7, "z")
    assert (options.state, options.local_socket) == (home.state, home.local_socket)
    assert options.advertise == ""


def test_secrets_are_kept_back_wherever_they_lie(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    files = {
        f"MOONCAKE_{key}": str(tmp_path / key)
        for key in ("SECRET_FILE", "HF_TOKEN_FILE", "ETCD_PASSWORD_FILE", "ETCD_KEY")
    }
    for file in files.values():
        Path(file).write_text("x" * 40)
        Path(file).chmod(0o600)
    settings = Settings.load({}, environ={**files, "HOME": str(tmp_path)}, cwd=tmp_path)
    own = {home.root, tmp_path / "state" / "mooncake"}
    expected = own | {directory / "secret" for directory in own} | set(map(Path, files.values()))
    assert set(node_options(home, settings).private) == expected


GIVEN = b"a secret that was given"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_a_node_has_its_users_secret(home: Home, host: str) -> None:
    own = own_secret(home.root)
    assert secret_for(host, None, insecure=False, fallback=home.root) == own
    assert secret_for(host, GIVEN, insecure=False) == GIVEN
    assert secret_for(host, None, insecure=True) is None
    assert secret_for(host, GIVEN, insecure=True) == GIVEN


def test_elsewhere_it_has_none_that_was_not_given() -> None:
    assert secret_for("0.0.0.0", None, insecure=False) is None
    assert secret_for("0.0.0.0", GIVEN, insecure=False) == GIVEN


def test_a_secret_in_a_file_is_handed_on_as_the_file(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(GIVEN)
    environ = {"HOME": str(tmp_path), "MOONCAKE_SECRET_FILE": str(file)}
    assert node_options(home, Settings.load({}, environ=environ, cwd=tmp_path)).secret == file
    environ["MOONCAKE_SECRET"] = "another"
    assert node_options(home, Settings.load({}, environ=environ, cwd=tmp_path)).secret == b"another"
    missing = {"HOME": str(tmp_path), "MOONCAKE_SECRET_FILE": str(tmp_path / "missing")}
    with pytest.raises(BadConfig, match="environment MOONCAKE_SECRET_FILE"):
        node_options(home, Settings.load({}, environ=missing, cwd=tmp_path))


def test_who_we_are_to_etcd_shows_no_password(tmp_path: Path) -> None:
    environ = {"MOONCAKE_ETCD_USER": "u", "MOONCAKE_ETCD_PASSWORD": "hidden", "HOME": str(tmp_path)}
    found = credentials(Settings.load({}, environ=environ, cwd=tmp_path))
    assert (found.user, found.password, found.ca) == ("u", "hidden", "")
    assert "hidden" not in repr(found)
