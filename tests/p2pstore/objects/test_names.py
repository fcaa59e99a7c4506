"""A name or path that passes stays where it belongs; every other is refused."""

from __future__ import annotations

import os.path
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.errors import BadName
from p2pstore.objects.names import (
    check_node_name,
    check_object_name,
    nodes_meant,
    path_fault,
    sibling_fault,
    tree_fault,
)

BAD_NAMES = [
    "", "/", "/x", "x/", "a//b", ".", "..", "../x", "x/..", "a/../b", "a/./b", "./a", "a b", "a\0b", "é", "a\\b", "a\n",
    "a:b", "x" * 256, "\udcff", "a?b", "*", "~",
]  # fmt: skip
BAD_PATHS = [
    "", "/", "/x", "x/", "a//b", ".", "..", "../x", "x/..", "a/../b", "a/./b", "./a", "a\0b", "x" * 256, "é" * 128,
    "\udcff", "/".join(["x"] * 2100),
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_object_names(name: str) -> None:
    with pytest.raises(BadName):
        check_object_name(name)


@pytest.mark.parametrize("name", ["a", "A-b_c.d", "models/llama/3", "...", "..a", "x" * 255, "-", "0"])
def test_good_object_names(name: str) -> None:
    assert check_object_name(name) == name


@pytest.mark.parametrize("name", [*BAD_NAMES, "a/b"])
def test_bad_node_names(name: str) -> None:
    with pytest.raises(BadName):
        check_node_name(name)


@pytest.mark.parametrize("name", ["a", "host-1.example", "x" * 255, "..."])
def test_good_node_names(name: str) -> None:
    assert check_node_name(name) == name


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths(path: str) -> None:
    assert path_fault(path)


@pytest.mark.parametrize("path", ["a", "a b/c", "é/ü", "\U0001f95f", "...", "a\\b", "x" * 255, "é" * 127, "a\nb", "~"])
def test_good_paths(path: str) -> None:
    assert path_fault(path) == ""


@given(st.text(max_size=40) | st.text(alphabet="./a\0", max_size=12))
def test_a_path_without_fault_stays_inside(path: str) -> None:
    if not path_fault(path):
        joined = os.path.normpath(os.path.join("/dest", path))
        assert joined.startswith("/dest/")
        assert joined == "/dest/" + path == str(PurePosixPath("/dest") / path)
        assert "\0" not in path


@given(st.text(max_size=40) | st.text(alphabet="./a-", max_size=12))
def test_a_name_is_taken_or_refused_as_bad(name: str) -> None:
    try:
        assert check_object_name(name) == name
    except BadName:
        return
    assert name.isascii()
    assert not path_fault(name)


TREES = st.lists(st.lists(st.sampled_from(["a", "b", "é", "a.", "..", ""]), min_size=1, max_size=3).map("/".join))


@given(TREES, TREES)
def test_a_tree_against_each_of_its_paths_alone(files: list[str], directories: list[str]) -> None:
    def inside(path: str, others: list[str]) -> bool:
        return any(path.startswith(f"{other}/") for other in others)

    wrong = any(map(path_fault, [*files, *directories]))
    wrong |= any(paths != sorted(set(paths)) for paths in (files, directories))
    wrong |= any(path in files for path in directories)
    wrong |= any(inside(path, [*files, *directories]) for path in [*files, *directories])
    assert bool(tree_fault(files, directories)) == wrong


@given(
    st.sampled_from(["", "a/", "é/", "x" * 250 + "/"]), st.text(max_size=9) | st.sampled_from(["x" * 256, "é" * 128])
)
def test_a_sibling_is_judged_as_its_whole_path(parent: str, name: str) -> None:
    if name and "/" not in name:
        assert sibling_fault(parent + name, parent) == path_fault(parent + name)


def test_a_sibling_whose_path_is_too_long() -> None:
    parent = "/".join(["x" * 255] * 15) + "/"
    assert sibling_fault(parent + "y" * 255, parent) == ""
    assert "longer" in sibling_fault(parent + "y/" + "z" * 254, parent)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("host1-a76f", ["host1-a76f"]),
        ("host1", ["host1-a76f"]),
        ("host1.cluster.local", ["host1-a76f"]),
        ("host2", ["host2-0123", "host2-beef"]),
        ("host2-b", ["host2-beef"]),
        ("host1-", ["host1-a76f"]),
        ("trainer", ["trainer"]),
        ("train", ["trainer", "trainer-2"]),
        ("node7", ["node7.cluster.local-1a2b"]),
        ("host", ["host1-a76f", "host10-a76f", "host2-0123", "host2-beef"]),
        ("nobody", []),
    ],
)
def test_a_node_is_found_by_its_hosts_name(asked: str, meant: list[str]) -> None:
    names = [
        "host2-beef",
        "host1-a76f",
        "host10-a76f",
        "host2-0123",
        "trainer",
        "trainer-2",
        "node7.cluster.local-1a2b",
    ]
    assert nodes_meant(asked, names) == meant
