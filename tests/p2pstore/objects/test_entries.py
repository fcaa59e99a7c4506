"""What is in the directories of an object."""

from __future__ import annotations

import pytest

from p2pstore.errors import NotInObject
from p2pstore.objects.entries import Entry, entries_in, entry_at
from tests.p2pstore.samples import MIB, manifest_of

MANIFEST = manifest_of({"a": b"1", "b/c": b"22", "b/d/e": b"333", "b.txt": b""}, MIB, ("b/none", "x/y"))
FILE = manifest_of({"": b"4444"}, MIB)


def shown(inside: str, *, recursive: bool = False) -> list[str]:
    found = entries_in(MANIFEST, inside, recursive=recursive)
    return [each.path + ("/" if each.kind == "directory" else f"={each.size}") for each in found]


def test_one_directory() -> None:
    assert shown("") == ["a=1", "b/", "b.txt=0", "x/"]
    assert shown("b") == ["b/c=2", "b/d/", "b/none/"]
    assert shown("b/d") == ["b/d/e=3"]
    assert shown("b/none") == []


def test_all_below() -> None:
    everything = ["a=1", "b/", "b.txt=0", "b/c=2", "b/d/", "b/d/e=3", "b/none/", "x/", "x/y/"]
    assert shown("", recursive=True) == everything
    assert shown("b", recursive=True) == ["b/c=2", "b/d/", "b/d/e=3", "b/none/"]


@pytest.mark.parametrize(("inside", "kind"), [("a", "file"), ("b", "directory"), ("x", "directory"), ("", "directory")])
def test_what_is_at_a_path(inside: str, kind: str) -> None:
    assert entry_at(MANIFEST, inside, "n").kind == kind


def test_numbers_are_the_manifests() -> None:
    assert entry_at(MANIFEST, "b/d/e", "n") == Entry("b/d/e", "file", 3, list(MANIFEST.columns.paths).index("b/d/e"))
    assert entry_at(FILE, "", "n") == Entry("", "file", 4, 0)


@pytest.mark.parametrize("inside", ["c", "b/", "a/b", "b/c/d", "B"])
def test_what_is_not_there(inside: str) -> None:
    with pytest.raises(NotInObject):
        entry_at(MANIFEST, inside, "n")
