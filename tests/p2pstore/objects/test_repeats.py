"""Zeros and repeated chunks are found by their digests, and nothing else is taken for one."""

from __future__ import annotations

import pytest
import xxhash

from p2pstore.objects import repeats as module
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.repeats import MIN_BYTES, Repeats, repeats_of, zero_digest
from tests.p2pstore.samples import content, manifest_of

CHUNK = MIN_BYTES
ONE, TWO = content(CHUNK, 1), content(CHUNK, 2)
ZERO = bytes(CHUNK)


def test_what_repeats() -> None:
    files = {"a": ONE + TWO + ONE, "b": TWO, "c": ZERO + ONE + ZERO}
    found = repeats_of(manifest_of(files, CHUNK))
    assert found.firsts == {2: 0, 3: 1, 5: 0}
    assert found.zeros == [4, 6]
    assert found
    assert 2 in found
    assert 0 not in found


def test_nothing_repeats() -> None:
    found = repeats_of(manifest_of({"a": ONE + TWO, "empty": b""}, CHUNK))
    assert not found
    assert not repeats_of(manifest_of({"": b""}, CHUNK))


def test_small_chunks_are_moved_along_with_their_neighbours() -> None:
    small = content(MIN_BYTES - 1)
    found = repeats_of(manifest_of({"a": small, "b": small, "c": bytes(MIN_BYTES - 1)}, 4 * CHUNK))
    assert not found


@pytest.mark.parametrize("length", [2 * CHUNK + 4096 * 17, 2 * CHUNK + CHUNK - 1])
def test_the_end_of_a_hole_is_one_too(length: int) -> None:
    """Of another file, whatever its length, it is not even tried: that would cost a hash of each length."""
    manifest = manifest_of({"a": bytes(length), "b": bytes(length)}, CHUNK)
    last = [2] if length % CHUNK >= MIN_BYTES or length % CHUNK == 0 else []
    assert repeats_of(manifest).zeros[:2] == [0, 1]
    assert set(last) <= set(repeats_of(manifest).zeros)


def test_ends_that_are_no_blocks_are_tried_behind_zeros_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def digest(hash_name: str, length: int) -> bytes:
        tried.append(length)
        return xxhash.xxh3_128(bytes(length)).digest()

    monkeypatch.setattr(module, "zero_digest", digest)
    odd = 2 * CHUNK - 3
    files = {"a": bytes(2 * CHUNK) + bytes(odd), "b": content(odd), "c": content(2 * CHUNK) + content(odd, 3)}
    manifest = manifest_of(files, 2 * CHUNK)
    assert repeats_of(manifest).zeros == [0, 1]
    assert tried.count(odd) == 1


@pytest.mark.parametrize("length", [1, 4096, 256 * 1024, 256 * 1024 + 1])
def test_the_digest_of_zeros(length: int) -> None:
    assert zero_digest("xxh3_128", length) == xxhash.xxh3_128(bytes(length)).digest()


def test_what_is_not_asked_for_does_not_count_as_there() -> None:
    had = Bitmap(4)
    had.add(1)
    planned = Repeats(firsts={3: 0}).planned(had)
    assert list(planned) == [1, 3]
    assert list(had) == [1]
