"""Which files hold an object's tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from p2pstore.errors import UsageError
from p2pstore.tensors.checkpoint import (
    Layout,
    chosen,
    config_of,
    files_to_read,
    layout_of,
    parse_index,
    without_doubles,
)
from p2pstore.tensors.header import Header, HeaderFault, parse_header
from p2pstore.tensors.patterns import NamePatterns
from tests.p2pstore.tensors.checkpoints import Shapes, file_of, index_of

A: Shapes = {"a.0": ("F32", (2,)), "a.1": ("F32", (3,))}
B: Shapes = {"b.0": ("U8", (4,)), "b.1": ("U8", (5,))}


def headers(files: Mapping[int, Shapes]) -> dict[int, Header]:
    found = {}
    for number, shapes in files.items():
        data = file_of(shapes)
        found[number] = parse_header(data, len(data))
    return found


@pytest.mark.parametrize(
    ("paths", "within", "layout"),
    [
        ([""], "", ([0], [], [])),
        (["README", "config.json", "m.safetensors"], "", ([2], [], [1])),
        (
            ["a.safetensors", "m.safetensors.index.json", "original/a.safetensors", "original/config.json"],
            "",
            ([0], [1], []),
        ),
        (["model_index.json", "unet/config.json", "unet/d.safetensors", "vae/d.safetensors"], "", ([2, 3], [], [1])),
        (["unet/config.json", "unet/d.safetensors", "vae/d.safetensors"], "unet", ([1], [], [0])),
        (["unet/config.json", "unet/d.safetensors", "vae/d.safetensors"], "unet/", ([1], [], [0])),
        (["unet/config.json", "unet/d.safetensors", "unetx/d.safetensors"], "unet", ([1], [], [0])),
        (["unet/a.safetensors", "unet/b.safetensors"], "unet/b.safetensors", ([1], [], [])),
        (["config.json", "unet/b.safetensors", "unet/config.json"], "unet/b.safetensors", ([1], [], [2])),
        (["config.json", "m.safetensors", "m.safetensors.index.json"], "m.safetensors", ([1], [], [0])),
    ],
)
def test_where_to_look(paths: list[str], within: str, layout: tuple[list[int], ...]) -> None:
    assert layout_of(paths, within) == Layout(*map(tuple, layout))


@pytest.mark.parametrize(
    ("paths", "within", "sentence"),
    [
        (["x.bin"], "", "no file of the object ends in '.safetensors'"),
        (["x.safetensors"], "y", "no file in 'y' ends in '.safetensors'"),
        ([""], "y", "single file"),
        ([], "", "no file of the object"),
    ],
)
def test_where_nothing_is(paths: list[str], within: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        layout_of(paths, within)


PATHS = ["m/1.safetensors", "m/2.safetensors", "m/3.safetensors", "m/m.safetensors.index.json"]


def test_an_index_tells_which_files_to_read() -> None:
    index = parse_index(index_of({"1.safetensors": A, "2.safetensors": B}), PATHS[3], PATHS)
    assert index == {"a.0": 0, "a.1": 0, "b.0": 1, "b.1": 1}
    layout = layout_of(PATHS)
    assert files_to_read(layout, PATHS, {3: index}, NamePatterns()) == (0, 1)
    assert files_to_read(layout, PATHS, {3: index}, NamePatterns(("b.*",))) == (1,)
    assert files_to_read(layout, PATHS, {3: index}, NamePatterns(("c",))) == ()
    assert files_to_read(layout, PATHS, {}, NamePatterns(("b.*",))) == (0, 1, 2)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([], "no weight_map"),
        ({}, "no weight_map"),
        ({"weight_map": []}, "no weight_map"),
        ({"weight_map": {"a": 1}}, "no weight_map"),
        ({"weight_map": {"a": "4.safetensors"}}, "the object has no safetensors file of that name there"),
        ({"weight_map": {"a": "../m/1.safetensors"}}, "'../m/1.safetensors'"),
        ({"weight_map": {"a": "m.safetensors.index.json"}}, "no safetensors file"),
        ({"weight_map": {"a": "/etc/passwd"}}, "no safetensors file"),
    ],
)
def test_an_index_that_lies(found: Any, sentence: str) -> None:
    with pytest.raises(HeaderFault, match=sentence.replace("(", "\\(")):
        parse_index(json.dumps(found).encode(), PATHS[3], PATHS)


def test_an_index_that_is_none() -> None:
    for data in (b"", b"\xff", b'{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}'):
        with pytest.raises(HeaderFault):
            parse_index(data, PATHS[3], PATHS)


def test_what_is_wanted_of_what_is_there() -> None:
    found = chosen(headers({0: A, 1: B}), {}, PATHS, NamePatterns(("*.1",)))
    assert [(number, tensor.name) for number, tensor in found] == [(0, "a.1"), (1, "b.1")]


def test_an_index_that_contradicts_a_header() -> None:
    with pytest.raises(HeaderFault, match=r"'a.1' is in 'm/2.safetensors', and it is not") as refused:
        chosen(headers({0: A, 1: B}), {3: {"a.0": 0, "a.1": 1}}, PATHS, NamePatterns())
    assert refused.value.path == PATHS[3]
    assert chosen(headers({0: A, 1: B}), {3: {"a.0": 0, "a.1": 1}}, PATHS, NamePatterns(("b.0",)))


def test_a_name_in_several_files() -> None:
    found = chosen(headers({0: A, 1: A}), {}, PATHS, NamePatterns())
    with pytest.raises(UsageError, match=r"'a.0' is in 'm/1.safetensors' and 'm/2.safetensors'; say with path="):
        without_doubles(found, {}, PATHS)
    taken = without_doubles(found, {3: {"a.0": 1, "a.1": 0}}, PATHS)
    assert [(number, tensor.name) for number, tensor in taken] == [(0, "a.1"), (1, "a.0")]


def test_the_description_beside_a_file() -> None:
    paths = ["a/config.json", "a/x.safetensors", "config.json", "x.safetensors"]
    assert config_of("a/x.safetensors", (0, 2), paths) == 0
    assert config_of("x.safetensors", (0, 2), paths) == 2
    assert config_of("b/x.safetensors", (0, 2), paths) is None
