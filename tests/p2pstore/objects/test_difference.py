"""What differs between two objects is counted, and permissions are no bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pstore.objects.difference import difference, same_bytes
from p2pstore.objects.manifest import Manifest
from tests.p2pstore.samples import KIB, content, manifest_of

FILES = {"a": content(4 * KIB, 1), "b": content(2 * KIB + 1, 2), "empty": b""}
OLD = manifest_of(FILES, KIB)


def with_modes(manifest: Manifest, mode: int) -> Manifest:
    return replace(manifest, files=tuple(replace(entry, mode=mode) for entry in manifest.files))


def with_origin(manifest: Manifest, path: str) -> Manifest:
    """The same files, one of which is cut from its byte 8 on."""
    digest = b"d" * manifest.columns.digest_bytes
    return replace(
        manifest,
        files=tuple(
            replace(entry, origin=8, chunks=(digest, *entry.chunks)) if entry.path == path else entry
            for entry in manifest.files
        ),
    )


def test_permissions_are_no_bytes() -> None:
    assert same_bytes(with_modes(OLD, 0o600), OLD)
    assert with_modes(OLD, 0o600).digest != OLD.digest


@pytest.mark.parametrize(
    "other",
    [
        manifest_of({**FILES, "a": content(4 * KIB, 9)}, KIB),
        manifest_of({**FILES, "c": b"x"}, KIB),
        manifest_of({"x": FILES["a"], "b": FILES["b"], "empty": b""}, KIB),
        manifest_of(FILES, 2 * KIB),
        manifest_of(FILES, KIB, ("none",)),
        replace(OLD, hash="blake3"),
    ],
)
def test_all_else_is_other_content(other: Manifest) -> None:
    assert not same_bytes(other, OLD)
    assert not same_bytes(OLD, other)


@pytest.mark.parametrize(
    ("new", "text"),
    [
        ({**FILES, "a": b"!" + FILES["a"][1:]}, "1 of 3 files and 1 of 7 chunks differ"),
        ({**FILES, "a": FILES["a"] + b"more"}, "1 of 3 files and 1 of 8 chunks differ"),
        ({**FILES, "a": FILES["a"][: 2 * KIB]}, "1 of 3 files and 0 of 5 chunks differ"),
        ({**FILES, "c": b"x"}, "1 of 4 files and 1 of 8 chunks differ"),
        ({"a": FILES["a"]}, "0 of 1 files and 0 of 4 chunks differ, and 2 files of before are not there"),
    ],
)
def test_what_differs_is_counted(new: dict[str, bytes], text: str) -> None:
    assert difference(manifest_of(new, KIB), OLD) == text


def test_what_is_hashed_in_another_way_cannot_be_compared() -> None:
    assert "cannot be compared" in difference(manifest_of(FILES, 2 * KIB), OLD)
    assert "cannot be compared" in difference(with_origin(OLD, "a"), OLD)
    assert "cannot be compared" in difference(OLD, with_origin(OLD, "a"))


def test_a_file_that_is_cut_otherwise_is_compared_by_its_chunks_where_it_is_new() -> None:
    new = with_origin(manifest_of({**FILES, "c": FILES["a"]}, KIB), "c")
    assert new.format != OLD.format
    assert difference(new, OLD) == "1 of 4 files and 5 of 12 chunks differ"
    assert difference(OLD, new) == "0 of 3 files and 0 of 7 chunks differ, and 1 files of before are not there"
