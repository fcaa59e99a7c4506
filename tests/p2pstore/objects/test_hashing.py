"""The hashes are the ones that their names promise, checked against their published test vectors."""

from __future__ import annotations

import builtins
import importlib
from typing import Any

import pytest

from p2pstore.errors import PackageMissing, UsageError
from p2pstore.objects.choices import DEFAULT_HASH, DIGEST_BYTES
from p2pstore.objects.hashing import hasher

EMPTY = {
    "xxh3_128": "99aa06d3014798d86001c324468d497f",
    "blake3": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
}


def test_there_is_a_default() -> None:
    assert DEFAULT_HASH in DIGEST_BYTES


@pytest.mark.parametrize("name", sorted(DIGEST_BYTES))
def test_digests(name: str) -> None:
    make = hasher(name)
    assert make().digest().hex() == EMPTY[name]
    whole, parts = make(), make()
    data = memoryview(bytes(range(256)) * 1000)
    whole.update(data)
    for at in range(0, len(data), 999):
        parts.update(data[at : at + 999])
    assert whole.digest() == parts.digest() != make().digest()
    assert len(whole.digest()) == DIGEST_BYTES[name]


def test_an_unknown_hash() -> None:
    with pytest.raises(UsageError, match="md5"):
        hasher("md5")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        raise builtins.ImportError(name)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(PackageMissing, match="needs the package blake3") as caught:
        hasher("blake3")
    assert "mooncake-cli[blake3]" in caught.value.hint
