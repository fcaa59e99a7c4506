from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from engine.errors import BadConfig, UsageError
from p2pstore.integrations import plugin_settings
from p2pstore.integrations.plugin_settings import namespace, settings
from p2pstore.kv.client.setup_keys import understood

ROOT = Path(__file__).resolve().parents[3]


def test_the_engines_configuration_is_above_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.json"
    path.write_text('{"master_server_address": "a:1", "local_hostname": "h", "global_segment_size": "1gb"}')
    said = {"master_server_address": "b:2", "cache_prefix": "w1", "chunk_size": 256}
    assert settings(said, {"MOONCAKE_CONFIG_PATH": str(path)}) == {
        "local_hostname": "h",
        "metadata_server": "P2PHANDSHAKE",
        "master_server_address": "b:2",
        "global_segment_size": 1 << 30,
        "cache_prefix": "w1",
    }


def test_without_a_file_there_is_a_default_for_all_that_setup_needs() -> None:
    assert understood(settings({}, {})).master_server_addr == "127.0.0.1:50051"


def test_this_host_is_called_by_the_address_from_which_it_reaches_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings({}, {})["local_hostname"] == "127.0.0.1"
    asked: list[object] = []
    monkeypatch.setattr(plugin_settings, "local_address", lambda *server: asked.append(server) or "10.0.0.7")
    assert settings({"master_server_address": "10.0.0.1"}, {})["local_hostname"] == "10.0.0.7"
    assert asked == [(("10.0.0.1", 50051), 0)]
    assert settings({"local_hostname": "me"}, {})["local_hostname"] == "me"
    with pytest.raises(UsageError):
        settings({"master_server_address": "a:b:c"}, {})


def test_a_file_that_makes_no_sense_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadConfig):
        settings({}, {"MOONCAKE_CONFIG_PATH": str(tmp_path / "none.json")})


def test_weights_are_told_apart_by_what_was_given_or_by_themselves(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert namespace("given", str(tmp_path)) == "given"
    assert namespace("", "organisation/model") == ""
    first = namespace("", str(tmp_path))
    assert first.startswith("ws")
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    assert namespace("", str(tmp_path)) not in {first, ""}
    (tmp_path / "empty").mkdir()
    assert namespace("", str(tmp_path / "empty")) == ""


def test_the_document_names_settings_that_are_taken() -> None:
    """What is printed there is what engines are given; ``tests/serving`` gives it to them."""
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    (yaml,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    named = re.findall(r"^ +mooncake_(\w+): \S", yaml, re.MULTILINE)
    assert set(named) <= set(plugin_settings.NAMES)
    assert {"master_server_address", "cache_prefix"} <= set(named)
    (words,) = re.findall(r"```sh\n(python -m sglang.*?)```", text, re.DOTALL)
    said = json.loads(shlex.split(words)[-1])
    assert set(said) - set(plugin_settings.NAMES) == {"backend_name", "module_path", "class_name", "interface_v1"}
    understood({name: value for name, value in settings(said, {}).items() if name != "cache_prefix"})
