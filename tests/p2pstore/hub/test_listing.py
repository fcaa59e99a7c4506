"""Listings as they are kept, and the names of what is kept."""

from __future__ import annotations

import json

import pytest

from p2pstore.hub.documents import RepoFile
from p2pstore.hub.listing import Listing, blob_name, listing_names, parse_listing
from p2pstore.objects.names import is_object_name
from p2pstore.objects.oid import GIT, SHA256

COMMIT = "a" * 40
LISTING = Listing(
    COMMIT,
    1.5,
    (RepoFile("c.json", 2, "b" * 40, lfs=False), RepoFile("ü/m", 9, "c" * 64, lfs=True)),
    (GIT, SHA256),
)


def test_there_and_back() -> None:
    assert parse_listing(LISTING.to_bytes()) == LISTING
    assert LISTING.paths == ["c.json", "ü/m"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": "x"},
        {"commit": "main"},
        {"commit": 1},
        {"files": [["a", 1, "md5", "b" * 40]]},
        {"files": [["a", 1, GIT, "b"]]},
        {"files": [["a", -1, GIT, "b" * 40]]},
        {"files": [["a"]]},
        {"files": [["../a", 1, GIT, "b" * 40]]},
        {"files": [["/a", 1, GIT, "b" * 40]]},
        {"files": [["a", 1, GIT, "b" * 40], ["a", 1, GIT, "b" * 40]]},
        {"files": 5},
        {"modified": "x"},
    ],
)
def test_what_is_none(change: dict[str, object]) -> None:
    document = {**json.loads(LISTING.to_bytes()), **change}
    for data in (json.dumps(document).encode(), b"", b"[]", b"\xff"):
        with pytest.raises(ValueError):
            parse_listing(data)


def test_names() -> None:
    assert listing_names("models", "org/n", "main", COMMIT) == [
        f"hf/models/org/n/commits/{COMMIT}",
        "hf/models/org/n/refs/main",
    ]
    assert listing_names("models", "org/n", COMMIT, COMMIT) == [f"hf/models/org/n/commits/{COMMIT}"]
    assert listing_names("models", "org/n", "odd revision", COMMIT) == [f"hf/models/org/n/commits/{COMMIT}"]
    assert is_object_name(blob_name("b" * 40))
