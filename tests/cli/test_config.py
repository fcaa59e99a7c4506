from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Mooncake


def test_people_see_values_and_their_origins(mooncake: Mooncake, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "mooncake.toml").write_text("lease_ttl = 20\n")
    done = mooncake("config", "show", "--origin", "--metadata", "etcd://a:1,b:2", MOONCAKE_ZONE="z")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in done.stdout.splitlines()}
    assert rows["lease_ttl"] == ["20", str(tmp_path / "cwd" / "mooncake.toml")]
    assert rows["zone"] == ["z", "environment MOONCAKE_ZONE"]
    assert rows["metadata"] == ["etcd://a:1,b:2", "option --metadata"]
    assert rows["connections"] == ["-", "default"]
    assert rows["node"] == ["-", "default"]
    assert (done.returncode, done.stderr) == (0, "")


def test_json(mooncake: Mooncake) -> None:
    document = json.loads(mooncake("config", "show", "--json", MOONCAKE_ZONE="z").stdout)
    assert (document["zone"], document["node"], document["insecure"]) == ("z", None, False)
    document = json.loads(mooncake("config", "show", "--json", "--origin", MOONCAKE_ZONE="z").stdout)
    assert document["zone"] == {"value": "z", "origin": "environment MOONCAKE_ZONE"}


def test_quiet_prints_what_is_set(mooncake: Mooncake) -> None:
    lines = mooncake("config", "show", "-q").stdout.splitlines()
    assert "lease_ttl=10" in lines
    assert not any(line.startswith("node") for line in lines)


def test_secrets_are_not_shown(mooncake: Mooncake) -> None:
    for mode in ([], ["--json"], ["-q"]):
        done = mooncake(
            "config", "show", "--origin", *mode, MOONCAKE_SECRET="hunter2", MOONCAKE_ETCD_PASSWORD="hunter3"
        )
        assert done.stdout.count("set, not shown") == 2
        assert "hunter" not in done.stdout + done.stderr


def test_an_unknown_key_is_named_with_the_nearest(mooncake: Mooncake, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "mooncake.toml").write_text("chunksize = 1\n")
    done = mooncake("config", "show")
    assert done.returncode == 2
    assert "mooncake.toml: unknown key 'chunksize'; did you mean chunk_size?" in done.stderr


def test_a_named_file_that_is_missing(mooncake: Mooncake) -> None:
    done = mooncake("list", "--config", "nowhere.toml")
    assert done.returncode == 2
    assert "nowhere.toml: there is no such file" in done.stderr


def test_upstreams_own_configuration_has_its_origin_too(mooncake: Mooncake, tmp_path: Path) -> None:
    file = tmp_path / "mooncake.json"
    file.write_text(
        '{"metadata_server": "h:2379", "metadata_backend": "etcd", "protocol": "rdma", "device_name": "mlx5_0"}'
    )
    shown = mooncake(
        "config",
        "show",
        "--origin",
        "--json",
        MOONCAKE_CONFIG_PATH=str(file),
        MC_SLICE_SIZE="65536",
        MC_REDIS_PASSWORD="x",
    ).stdout
    document = json.loads(shown)
    assert document["metadata"] == {"value": "etcd://h:2379", "origin": f"{file}, metadata_server"}
    assert document["transport"] == {"value": "auto", "origin": f"{file}, protocol"}
    assert document["engine.device_name"] == {"value": "mlx5_0", "origin": f"{file}, device_name"}
    assert document["engine.slice_size"] == {"value": 65536, "origin": "environment MC_SLICE_SIZE"}
    assert document["engine.redis_password"] == {"value": "set, not shown", "origin": "environment MC_REDIS_PASSWORD"}
    assert document["engine.retries"]["origin"] == "default"


def test_what_is_not_obeyed_is_said_and_shown(mooncake: Mooncake, tmp_path: Path) -> None:
    file = tmp_path / "cwd" / "mooncake.toml"
    file.write_text("insecure = true\nzone = 'z'\n")
    said = f"warning: {file}, insecure is ignored: a file of the current directory never sets it\n"
    for options in ([], ["-q"], ["--json"]):
        assert mooncake("config", "show", *options).stderr == said
    shown = json.loads(mooncake("config", "show", "--origin", "--json").stdout)
    assert shown[f"{file}, insecure"] == {
        "value": "ignored",
        "origin": "a file of the current directory never sets it",
    }
    assert (shown["insecure"]["value"], shown["zone"]["value"]) == (False, "z")
    file.chmod(0o666)
    done = mooncake("config", "show", "--origin")
    assert done.stderr == f"warning: {file} is ignored: others can write it\n"
    assert f"{file}" in done.stdout
