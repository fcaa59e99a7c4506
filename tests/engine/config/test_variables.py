from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import variables
from engine.config.settings import EngineSettings
from engine.config.variables import PROGRAM_VARIABLES, VARIABLES, concerns

ROOT = Path(__file__).resolve().parents[3]
ALL = (*VARIABLES, *PROGRAM_VARIABLES)


@given(st.integers(), st.integers(-10, 10), st.integers(11, 100))
def test_a_whole_number_counts_where_it_lies_between_the_bounds(value: int, low: int, high: int) -> None:
    parse = variables.integer(low, high)
    if low <= value <= high:
        assert parse(f" {value} ") == value
    else:
        with pytest.raises(ValueError, match=f"{value} is not between {low} and {high}"):
            parse(str(value))


@pytest.mark.parametrize("text", ["", "-", "--5", "5-", "1.0", "1e3", "0x10", "1_000", "٣", "²", "9" * 5000])
def test_what_is_no_whole_number_is_called_that(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        variables.integer(-9, 9)(text)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (variables.seconds(1, 60), "7", 7.0),
        (variables.given, "", True),
        (variables.given, "0", True),
        (variables.address, " 10.0.0.1 ", "10.0.0.1"),
        (variables.address, "FE80::1", "fe80::1"),
        (variables.log_level, "trace", "DEBUG"),
        (variables.log_level, " ERROR ", "ERROR"),
        (variables.protocol_version, "1", 1),
        (variables.protocol_version, "2", 2),
        (variables.protocol_version, "nonsense", 2),
        (variables.gid_index, "3", 3),
        (variables.gid_index, "-1", None),
        (variables.mtu, "4096", 4096),
        (variables.cluster, "blue/", "blue"),
        (variables.cluster, "/blue", "blue"),
    ],
)
def test_what_a_text_means(parse: Callable[[str], Any], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (variables.seconds(1, 60), "0"),
        (variables.seconds(1, 60), "1.5"),
        (variables.address, "node1"),
        (variables.address, "10.0.0.1/8"),
        (variables.log_level, "LOUD"),
        (variables.log_level, ""),
        (variables.gid_index, "-2"),
        (variables.mtu, "1500"),
        (variables.cluster, "a/b"),
        (variables.cluster, "/"),
        (variables.cluster, ""),
    ],
)
def test_what_means_nothing_is_refused_with_the_text_itself(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^'?{re.escape(text)}'? is no"):
        parse(text)


def test_only_what_has_an_effect_concerns_the_engine() -> None:
    for variable in ALL:
        assert concerns({variable.name: ""}) == (bool(variable.field) or variable.name == variables.CONFIG_PATH)
    assert not concerns({"PATH": "/bin"})


def test_the_table_names_each_variable_once_and_says_something_of_each() -> None:
    names = [each.name for each in ALL]
    assert len(names) == len(set(names))
    assert all(each.says and not each.says.endswith(".") for each in ALL)
    known = {each.name for each in dataclasses.fields(EngineSettings)}
    assert {each.field for each in ALL if each.field} <= known


def test_what_the_table_calls_honoured_is_used_somewhere() -> None:
    own = ROOT / "engine" / "config"
    files = [path for package in ("engine", "p2pstore", "mooncake_cli") for path in (ROOT / package).rglob("*.py")]
    text = "\n".join(path.read_text() for path in files if own not in path.parents)
    for variable in ALL:
        if variable.field in {"min_port", "max_port"}:
            assert re.search(r"ettings\.ports\b", text)
        elif variable.field and variable.field != "device_name":  # kept for RDMA; 'config show' shows it
            assert re.search(rf"(ettings|EngineSettings\.load\(\))\.{variable.field}\b", text), variable.name
        elif variable.used and variable.name != variables.CONFIG_PATH:
            assert variable.name in text, variable.name
