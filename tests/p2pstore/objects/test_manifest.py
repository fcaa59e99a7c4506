"""Where chunks lie, how large they are, and what names an object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.errors import UsageError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.choices import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from p2pstore.objects.manifest import CHUNKS_WANTED, MIB, Chunk, Manifest, check_chunk_size, choose_chunk_size
from p2pstore.objects.manifest_reader import MAX_OBJECT_BYTES
from tests.p2pstore.samples import KIB, content, manifest_of


def naive_chunks(manifest: Manifest) -> list[Chunk]:
    found, offset = [], 0
    for number, file in enumerate(manifest.files):
        for place, digest in enumerate(file.chunks):
            start = place * manifest.chunk_size
            length = min(manifest.chunk_size, file.size - start)
            found.append(Chunk(len(found), number, start, offset + start, length, digest))
        offset += file.size
    return found


@given(st.lists(st.integers(0, 40), max_size=8), st.sampled_from([1, 2, 8, 16]))
def test_chunks_against_a_naive_model(sizes: list[int], chunk_size: int) -> None:
    manifest = manifest_of({f"{n:02}": content(size, n) for n, size in enumerate(sizes)}, chunk_size)
    expected = naive_chunks(manifest)
    assert manifest.chunks == len(expected)
    assert [manifest.chunk(i) for i in range(manifest.chunks)] == expected == list(manifest.all_chunks())
    assert manifest.size == sum(sizes) == manifest.file_offsets[-1]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any), st.sampled_from([1, 4, 8]), st.data())
def test_chunks_of_a_range_against_a_naive_model(sizes: list[int], chunk_size: int, data: st.DataObject) -> None:
    manifest = manifest_of({f"{n:02}": content(size, n) for n, size in enumerate(sizes)}, chunk_size)
    offset = data.draw(st.integers(0, manifest.size - 1))
    length = data.draw(st.integers(1, manifest.size - offset))
    touched = [c.number for c in naive_chunks(manifest) if c.offset < offset + length and offset < c.offset + c.length]
    assert list(manifest.chunks_of(offset, length)) == touched


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, MIN_CHUNK_SIZE),
        (CHUNKS_WANTED * MIB, MIB),
        (CHUNKS_WANTED * MIB + 1, 2 * MIB),
        (140_000_000_000, 128 * MIB // 2),
        (MAX_OBJECT_BYTES, MAX_CHUNK_SIZE),
    ],
)
def test_the_chosen_chunk_size(size: int, expected: int) -> None:
    assert choose_chunk_size(size) == expected == check_chunk_size(expected)


@pytest.mark.parametrize("size", [0, -MIB, 1, MIB - 1, MIB + 1, 3 * MIB, 128 * MIB])
def test_chunk_sizes_that_are_refused(size: int) -> None:
    with pytest.raises(UsageError):
        check_chunk_size(size)


def test_the_identity_is_stable() -> None:
    """A change here changes the identity of every object there is."""
    manifest = manifest_of({"a b": b"hello", "c/é": b""}, MIB, ("d",))
    assert manifest.to_bytes().decode() == (
        '{"chunk_size":1048576,"directories":["d"],"files":[{"chunks":["b5e9c1ad071b3e7fc779cfaa5e523818"],'
        '"mode":420,"path":"a b","size":5},{"chunks":[],"mode":420,"path":"c/é","size":0}],'
        '"format":"mooncake.manifest.v1","hash":"xxh3_128","kind":"directory"}'
    )


@given(st.lists(st.integers(0, 5 * KIB), max_size=20), st.data())
def test_lengths_are_those_of_the_chunks(sizes: list[int], data: st.DataObject) -> None:
    made = manifest_of({f"f{number:02}": bytes(size) for number, size in enumerate(sizes)}, chunk_size=KIB)
    chunks = list(made.all_chunks())
    assert list(made.lengths) == [chunk.length for chunk in chunks]
    some = data.draw(st.sets(st.sampled_from(range(len(chunks))))) if chunks else set()
    have = Bitmap(len(chunks))
    for number in some:
        have.add(number)
    assert made.bytes_of(have) == sum(chunks[number].length for number in some)
