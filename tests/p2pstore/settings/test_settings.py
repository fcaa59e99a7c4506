from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.errors import BadConfig, UsageError
from p2pstore.settings.files import NEVER_BY_PROJECT
from p2pstore.settings.keys import KEYS, UPSTREAMS_TOO
from p2pstore.settings.settings import Settings


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    places = {
        "system": tmp_path / "etc" / "config.toml",
        "user": tmp_path / "config" / "mooncake" / "config.toml",
        "project": tmp_path / "work" / "mooncake.toml",
    }
    for file in places.values():
        file.parent.mkdir(parents=True)
    return places


@pytest.fixture
def load(tmp_path: Path, places: dict[str, Path]):
    def load(flags: dict[str, object] | None = None, config: Path | None = None, **environ: str) -> Settings:
        environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), **environ}
        return Settings.load(flags, config=config, environ=environ, cwd=tmp_path / "work", system=places["system"])

    return load


def test_without_anything_the_defaults_count(load) -> None:
    settings = load()
    assert (settings.listen, settings.lease_ttl, settings.hash) == ("127.0.0.1", 10, "xxh3_128")
    assert settings.metadata is settings.chunk_size is settings.connections is None
    assert settings.node is settings.secret is None
    assert set(settings.origins.values()) == {"default"}


def test_each_source_wins_over_the_next(load, places: dict[str, Path]) -> None:
    expected = "default"
    assert load().origins["zone"] == expected
    for name in ("system", "user", "project"):
        places[name].write_text(f'zone = "{name}"\n')
        settings = load()
        assert (settings.zone, settings.origins["zone"]) == (name, str(places[name]))
    settings = load(MOONCAKE_ZONE="environment")
    assert (settings.zone, settings.origins["zone"]) == ("environment", "environment MOONCAKE_ZONE")
    settings = load({"zone": "flag"}, MOONCAKE_ZONE="environment")
    assert (settings.zone, settings.origins["zone"]) == ("flag", "option --zone")


def test_a_file_that_is_named_replaces_the_users(load, places: dict[str, Path], tmp_path: Path) -> None:
    places["user"].write_text('zone = "user"\nconnections = 7\n')
    (tmp_path / "work" / "mine.toml").write_text('zone = "mine"\n')
    for settings in (load(config=Path("mine.toml")), load(MOONCAKE_CONFIG="mine.toml")):
        assert (settings.zone, settings.connections) == ("mine", None)
        assert settings.config == tmp_path / "work" / "mine.toml"


def test_a_file_that_is_named_must_be_there(load) -> None:
    with pytest.raises(BadConfig, match=r"mine\.toml: there is no such file"):
        load(config=Path("mine.toml"))


def test_the_project_file_of_a_parent_does_not_count(load, tmp_path: Path) -> None:
    (tmp_path / "mooncake.toml").write_text('zone = "parent"\n')
    assert load().zone is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("chunksize = 1", "unknown key 'chunksize'; did you mean chunk_size"),
        ("chunk-size = 1", "did you mean chunk_size"),
        ("frobnicate = 1", "unknown key 'frobnicate'; the keys are home, metadata"),
        ('secret = "x"', "a secret is not written here; set MOONCAKE_SECRET, or name a file with secret_file"),
        ("chunk_size = 0", "chunk_size: '0' is not a power of two"),
        ('lease_ttl = "soon"', "'soon' is not a whole number"),
        ("lease_ttl = 1", "1 is not between 2 and 3600"),
        ("connections = 65", "65 is not between 1 and 64"),
        ('insecure = "perhaps"', "neither true nor false"),
        ("zone = [1]", "a list cannot be zone"),
        ("zone = 1.5", "a float cannot be zone"),
        ('hash = "md5"', "'md5' is none of xxh3_128, blake3"),
        ('transport = "pigeon"', "is none of auto, rdma, tcp, local"),
        ('node = "a/b"', "bad name 'a/b'"),
        ('listen = "1.2.3.4:x"', "is not a port"),
        ('listen = "1.2.3.4:7400-7401"', "has 2 ports, and an agent takes 3"),
        ('listen = "1.2.3.4:65534"', "takes 3 ports from that of '1.2.3.4:65534' on, and 65535 is the last"),
        ('listen = "1.2.3.4:7420-7400"', "the lower one first"),
        ('metadata = "etcd://u:p@h"', "a user or password has no place in a URL"),
        ('zone = ""', "it is empty"),
        ("zone = ", "it is not TOML"),
        ("[zone]\nx = 1", "a dict cannot be zone"),
    ],
)
def test_what_is_not_understood_names_file_and_key(load, places: dict[str, Path], text: str, complaint: str) -> None:
    places["project"].write_text(text + "\n")
    with pytest.raises(BadConfig) as caught:
        load()
    assert complaint in str(caught.value)
    assert str(caught.value).startswith(str(places["project"]))
    assert caught.value.exit_code == 2


def test_a_bad_password_is_not_repeated(load) -> None:
    with pytest.raises(UsageError) as caught:
        load({"metadata": "etcd://me:hunter2@host"})
    assert "hunter2" not in str(caught.value)


def test_a_bad_variable_is_named(load) -> None:
    with pytest.raises(BadConfig, match="environment MOONCAKE_LEASE_TTL: 'x' is not a whole number"):
        load(MOONCAKE_LEASE_TTL="x")


@pytest.mark.parametrize(
    "variable",
    [
        *sorted({key.variable for key in KEYS.values() if not isinstance(key.default, bool)} - UPSTREAMS_TOO),
        "MOONCAKE_CONFIG",
        "MOONCAKE_SECRET",
    ],
)
def test_an_empty_variable_is_no_default(load, variable: str) -> None:
    """A script that sets one from another that is not set means no default by it."""
    with pytest.raises(BadConfig) as caught:
        load(**{variable: ""})
    assert str(caught.value).startswith(f"environment {variable}: ")


def test_a_bad_flag_is_a_usage_error(load) -> None:
    with pytest.raises(UsageError, match="--chunk-size: '0' is not a power of two"):
        load({"chunk_size": "0"})


def test_a_current_directory_that_was_removed_holds_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert Settings.load({}, environ={"HOME": str(tmp_path)}, system=tmp_path / "none").zone is None
    monkeypatch.chdir(tmp_path)


def test_variables_of_mooncake_store_are_left_alone(load) -> None:
    settings = load(MOONCAKE_GLOBAL_SEGMENT_SIZE="x", MOONCAKE_LOCAL_BUFFER_SIZE="big", MC_MAX_SGE="x")
    assert set(settings.origins.values()) == {"default"}


def test_the_stores_master_is_found_where_upstreams_programs_look(load, tmp_path: Path) -> None:
    file = tmp_path / "mooncake.json"
    file.write_text('{"master_server_address": "10.0.0.1:50051", "tenant_id": "red"}')
    settings = load(MOONCAKE_CONFIG_PATH=str(file))
    assert (settings.master, settings.tenant_id) == ("10.0.0.1:50051", "red")
    assert settings.origins["master"] == f"{file}, master_server_address"
    settings = load(MOONCAKE_CONFIG_PATH=str(file), MOONCAKE_MASTER="10.0.0.2:1", MOONCAKE_TENANT_ID="blue")
    assert (settings.master, settings.tenant_id) == ("10.0.0.2:1", "blue")


@pytest.mark.parametrize("variable", sorted(UPSTREAMS_TOO))
def test_an_empty_variable_of_upstreams_is_none(load, variable: str) -> None:
    """Its programs take it so, and a script that starts them must not keep ours from starting."""
    assert set(load(**{variable: ""}).origins.values()) == {"default"}


def test_relative_paths_start_where_they_are_written(load, places: dict[str, Path], tmp_path: Path) -> None:
    places["user"].write_text('secret_file = "secret"\n')
    assert load().secret_file == places["user"].parent / "secret"
    assert load(MOONCAKE_SECRET_FILE="secret").secret_file == tmp_path / "work" / "secret"


def test_secrets_come_from_files(load, tmp_path: Path) -> None:
    (tmp_path / "work" / "secret").write_bytes(b"open sesame\n")
    settings = load(MOONCAKE_SECRET_FILE="secret", MOONCAKE_ETCD_PASSWORD_FILE="secret")
    assert settings.secret == b"open sesame"
    assert settings.etcd_password == "open sesame"


def test_secrets_come_from_the_environment(load) -> None:
    settings = load(MOONCAKE_SECRET="a", MOONCAKE_ETCD_PASSWORD="b")
    assert (settings.secret, settings.etcd_password) == (b"a", "b")


def test_secrets_are_never_shown(load, tmp_path: Path) -> None:
    (tmp_path / "work" / "file").write_bytes(b"hunter2")
    settings = load(MOONCAKE_SECRET="hunter2", MOONCAKE_ETCD_PASSWORD_FILE="file")
    rows = {key: (value, origin) for key, value, origin in settings.shown()}
    assert rows["secret"] == ("set, not shown", "environment MOONCAKE_SECRET")
    assert rows["etcd_password"][0] == "set, not shown"
    assert "hunter2" not in repr(settings) + str(rows)


def test_every_key_is_a_field_and_is_shown(load) -> None:
    fields = {field.name for field in dataclasses.fields(Settings)} - {"origins", "config", "given_secrets", "ignored"}
    assert fields == set(KEYS)
    assert [row[0] for row in load().shown()][: len(KEYS)] == list(KEYS)


def test_another_process_comes_to_the_same_settings(load, places: dict[str, Path], tmp_path: Path) -> None:
    places["user"].write_text('secret_file = "s"\nlease_ttl = 30\ninsecure = true\n')
    settings = load({"listen": "0.0.0.0:99", "chunk_size": "4m"}, MOONCAKE_METADATA="etcd://a,b:99")
    child = Settings.load({}, environ=settings.environment({}), cwd=Path("/"), system=tmp_path / "none")
    assert all(getattr(child, name) == getattr(settings, name) for name in KEYS)
    assert child.secret_file == places["user"].parent / "s"


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), st.text(max_size=8)))
def test_any_environment_loads_or_is_bad_config(values: dict[str, str]) -> None:
    environ: dict[str, Any] = {KEYS[name].variable: value for name, value in values.items()}
    with contextlib.suppress(BadConfig):
        Settings.load({}, environ={"HOME": "/nonexistent", **environ}, cwd=Path("/nonexistent"), system=Path("/none"))


# What is not obeyed


def test_a_file_of_the_current_directory_never_opens_us_to_others(load, places: dict[str, Path]) -> None:
    text = 'insecure = true\nlisten = "0.0.0.0"\nadvertise = "10.0.0.1"\nsecret_file = "s"\netcd_password_file = "p"\n'
    text += 'group = "users"\nmaster_insecure = true\nmaster_listen = "0.0.0.0:1"\nmaster_metrics = "0.0.0.0:2"\n'
    text += 'metrics = "0.0.0.0:3"\ncache_quota = 1\n'
    text += 'master_allow = "0.0.0.0/0"\nmaster_state = "/tmp/x"\nhf_endpoint = "0.0.0.0:1"\nhf_token_file = "t"\n'
    text += 'hf_upstream = "https://hub.example"\n'
    places["project"].write_text(text + "lease_ttl = 30\n")
    settings = load()
    assert (settings.insecure, settings.listen, settings.advertise) == (False, "127.0.0.1", None)
    assert (settings.secret_file, settings.etcd_password_file) == (None, None)
    assert (settings.master_insecure, settings.master_listen, settings.master_allow) == (False, "127.0.0.1:50051", None)
    assert (settings.metrics, settings.cache_quota) == (None, 0)
    assert (settings.hf_endpoint, settings.hf_token_file) == (None, None)
    assert settings.lease_ttl == 30
    reason = "a file of the current directory never sets it"
    assert sorted(settings.ignored) == sorted((f"{places['project']}, {key}", reason) for key in NEVER_BY_PROJECT)
    places["user"].write_text(text)
    assert load().insecure


@pytest.mark.parametrize("which", ["system", "user", "project"])
def test_a_file_that_others_can_write_is_not_obeyed(load, places: dict[str, Path], which: str) -> None:
    places[which].write_text("lease_ttl = 30\n")
    assert load().lease_ttl == 30
    places[which].chmod(0o666)
    settings = load()
    assert settings.lease_ttl == 10
    assert settings.ignored == ((str(places[which]), "others can write it"),)
    assert {name: origin for name, _, origin in settings.shown()}["lease_ttl"] == "default"


def test_anothers_file_is_not_obeyed(load, places: dict[str, Path]) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    places["project"].write_text("lease_ttl = 30\n")
    os.chown(places["project"], 12345, 0)
    settings = load()
    assert settings.lease_ttl == 10
    assert settings.ignored == ((str(places["project"]), "it belongs to user 12345"),)


def test_a_link_that_another_made_is_not_followed(load, places: dict[str, Path], tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    (tmp_path / "mine.toml").write_text("lease_ttl = 30\n")
    places["project"].symlink_to(tmp_path / "mine.toml")
    assert load().lease_ttl == 30
    os.chown(places["project"], 12345, 0, follow_symlinks=False)
    assert load().ignored == ((str(places["project"]), "the link to it belongs to user 12345"),)


def test_a_pipe_in_the_current_directory_holds_nobody_up(load, places: dict[str, Path]) -> None:
    os.mkfifo(places["project"])
    assert load().ignored == ((str(places["project"]), "it is no regular file"),)


def test_a_file_that_was_named_is_refused_instead(load, tmp_path: Path) -> None:
    file = tmp_path / "named.toml"
    file.write_text("lease_ttl = 30\n")
    file.chmod(0o646)
    with pytest.raises(BadConfig, match=r"named\.toml: it is not obeyed, since others can write it"):
        load(config=file)


def test_a_named_file_may_be_a_pipe(load) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"lease_ttl = 30\n")
    os.close(writing)
    try:
        assert load(config=Path(f"/proc/self/fd/{reading}")).lease_ttl == 30
    finally:
        os.close(reading)


def test_a_mooncake_json_that_others_can_write_is_not_obeyed(load, tmp_path: Path) -> None:
    file = tmp_path / "mooncake.json"
    file.write_text('{"metadata_server": "h:2379", "metadata_backend": "etcd"}')
    assert load(MOONCAKE_CONFIG_PATH=str(file)).metadata == "etcd://h:2379"
    file.chmod(0o666)
    settings = load(MOONCAKE_CONFIG_PATH=str(file))
    assert settings.metadata is None
    assert settings.ignored == ((str(file), "others can write it"),)


def test_an_agent_knows_where_what_it_was_handed_comes_from(tmp_path: Path) -> None:
    """A secret's file that is named by /etc is not told as one of a variable that nobody has set."""
    (tmp_path / "system.toml").write_text('secret_file = "/etc/mooncake/secret"\n')
    first = Settings.load({"zone": "r1"}, environ={}, cwd=tmp_path, system=tmp_path / "system.toml")
    handed = first.environment({})
    agent = Settings.load(environ=handed, cwd=tmp_path, system=tmp_path / "none")
    for name in ("secret_file", "zone"):
        assert agent.origins[name] == first.origins[name]
    assert "system.toml" in agent.origins["secret_file"]
    changed = Settings.load(environ={**handed, "MOONCAKE_ZONE": "r2"}, cwd=tmp_path, system=tmp_path / "none")
    assert changed.origins["zone"] == "environment MOONCAKE_ZONE"
    for nonsense in ("", "x", "[]", "3", '{"MOONCAKE_ZONE": 3}'):
        found = Settings.load(environ={"MOONCAKE_ZONE": "r", "MOONCAKE_ORIGINS": nonsense}, cwd=tmp_path)
        assert found.origins["zone"] == "environment MOONCAKE_ZONE"
