"""The names that git itself gives, and those of Git LFS."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

import pytest

from p2pstore.objects.oid import GIT, SHA256, git_oid, is_oid, oid_hasher


@pytest.mark.parametrize("data", [b"", b"{}", b"a\0b" * 1000])
def test_git_itself_says_the_same(data: bytes) -> None:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    done = subprocess.run(["git", "hash-object", "--stdin"], input=data, capture_output=True, check=True)
    assert git_oid(data) == done.stdout.decode().strip()


def test_what_git_calls_nothing() -> None:
    assert git_oid(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_git_lfs_goes_by_the_bytes_alone() -> None:
    hashed = oid_hasher(SHA256, 4)
    hashed.update(b"ab")
    hashed.update(memoryview(b"cd"))
    assert hashed.hexdigest() == hashlib.sha256(b"abcd").hexdigest()


@pytest.mark.parametrize(
    ("text", "way", "good"),
    [
        ("0" * 40, GIT, True),
        ("0" * 64, SHA256, True),
        ("0" * 64, GIT, False),
        ("g" * 40, GIT, False),
        (None, GIT, False),
    ],
)
def test_what_is_a_name(text: object, way: str, good: bool) -> None:
    assert is_oid(text, way) is good
