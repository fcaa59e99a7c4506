"""Files that are compared with what their origins say of them."""

from __future__ import annotations

import hashlib
import zlib

import pytest

from p2pstore.errors import OriginDiffers
from p2pstore.objects.oid import git_oid
from p2pstore.origins.proof import Proof, is_of_parts, kind_of_parts
from p2pstore.origins.source import OriginFile

DATA = bytes(range(256)) * 10


def of_parts(kind: str, size: int) -> str:
    parts = [hashlib.new(kind, DATA[at : at + size]).digest() for at in range(0, len(DATA), size)]
    return f"{hashlib.new(kind, b''.join(parts)).hexdigest()}-{len(parts)}"


RIGHT = [
    ("sha256", hashlib.sha256(DATA).hexdigest()),
    ("md5", hashlib.md5(DATA).hexdigest()),
    ("git", git_oid(DATA)),
    ("crc32", f"{zlib.crc32(DATA):08x}"),
    *((kind_of_parts(kind, size), of_parts(kind, size)) for kind in ("md5", "sha256") for size in (1000, 1280, 9999)),
]


def check(kind: str, digest: str, data: bytes, step: int) -> None:
    proof = Proof(OriginFile("a", "p", len(DATA), "1", hashes=((kind, digest),)))
    for at in range(0, len(data), step):
        proof.update(memoryview(data)[at : at + step])
    proof.check("x")


@pytest.mark.parametrize(("kind", "digest"), RIGHT, ids=[kind for kind, _ in RIGHT])
@pytest.mark.parametrize("step", [7, 1000, 10_000])
def test_right_and_wrong_bytes(kind: str, digest: str, step: int) -> None:
    check(kind, digest, DATA, step)
    with pytest.raises(OriginDiffers, match=f"a has another {kind} than {digest}"):
        check(kind, digest, b"!" + DATA[1:], step)


def test_what_is_not_known_is_not_compared() -> None:
    check("crc64nvme", "00", DATA, 100)


def test_which_depend_on_parts() -> None:
    assert [is_of_parts(kind) for kind in ("md5", kind_of_parts("md5", 8), "md5 of parts")] == [False, True, False]
