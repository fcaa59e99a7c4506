"""Any bytes are a good manifest or refused, and what is read is what was written."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pstore.errors import BadManifest
from p2pstore.objects import manifest_reader as module
from p2pstore.objects.choices import MAX_CHUNK_SIZE
from p2pstore.objects.cutting import chunk_count
from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.manifest import MIB, Manifest
from p2pstore.objects.manifest_reader import MAX_OBJECT_BYTES, parse
from p2pstore.objects.names import path_fault

PARTS = st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join).filter(lambda p: not path_fault(p))
SIZES = st.integers(0, 3 * MIB + 7) | st.sampled_from([0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB])
DIGESTS = st.binary(min_size=16, max_size=16)


def is_inside(path: str, other: str) -> bool:
    return path == other or path.startswith(other + "/")


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any valid manifest, with true shapes and arbitrary digests."""
    chunk_size = draw(st.sampled_from([MIB, 2 * MIB, 64 * MIB]))
    if draw(st.booleans()):
        paths, directories = [""], []
    else:
        paths, directories = [], []
        for path in draw(st.lists(PATHS, max_size=5)):
            taken = [*paths, *directories]
            if not any(is_inside(path, other) or is_inside(other, path) for other in taken):
                (paths if draw(st.booleans()) else directories).append(path)
    files = []
    for path in sorted(paths):
        size = draw(SIZES)
        origin = draw(st.integers(0, min(size, chunk_size) - 1)) if size and draw(st.booleans()) else 0
        chunks = [draw(DIGESTS) for _ in range(chunk_count(size, chunk_size, origin))]
        files.append(FileEntry(path, size, draw(st.integers(0, 0o777)), tuple(chunks), origin))
    kind = "file" if paths == [""] else "directory"
    return Manifest(kind, "xxh3_128", chunk_size, tuple(files), tuple(sorted(directories)))


@given(manifests())
def test_round_trip(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    assert parse(data, peer="p") == manifest
    assert parse(data, peer="p", digest=manifest.digest).digest == manifest.digest == hashlib.sha256(data).hexdigest()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@given(st.binary() | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_parse_or_raise_bad_manifest(data: bytes) -> None:
    with contextlib.suppress(BadManifest):
        assert parse(data, peer="p").to_bytes() == data


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A valid manifest, and what became of it after bytes were changed, dropped or put in."""
    whole = draw(manifests()).to_bytes()
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 1)) if data else 0
        stop = at + draw(st.integers(0, 4))
        data[at:stop] = draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b",", b"0", b"/", b".", b"..", b"1", b"\\"])
        )
    return whole, bytes(data)


@given(mutated())
@settings(max_examples=300)
def test_a_changed_manifest_is_equal_or_refused(pair: tuple[bytes, bytes]) -> None:
    """By its digest, always; without one it may be another valid manifest, never one of other bytes."""
    whole, data = pair
    digest = hashlib.sha256(whole).hexdigest()
    if data == whole:
        assert parse(data, peer="p", digest=digest) == parse(whole, peer="p")
        return
    with pytest.raises(BadManifest):
        parse(data, peer="p", digest=digest)
    with contextlib.suppress(BadManifest):
        found = parse(data, peer="p")
        assert found.to_bytes() == data
        assert_safe(found)


@st.composite
def replaced(draw: st.DrawFn) -> bytes:
    """A valid manifest with one of its values replaced by any other, in canonical JSON."""
    data = json.loads(draw(manifests()).to_bytes())
    places: list[tuple[Any, Any]] = [(data, key) for key in data]
    for key in ("files", "directories"):
        places += [(data[key], n) for n in range(len(data[key]))]
    for file in data["files"]:
        places += [(file, key) for key in file]
        places += [(file["chunks"], n) for n in range(len(file["chunks"]))]
    where, key = draw(st.sampled_from(places))
    where[key] = draw(JSON | st.sampled_from(["../x", "/x", "a//b", "file", -1, [], {}, 1 << 70]))
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def assert_safe(manifest: Manifest) -> None:
    if manifest.kind == "file":
        assert [f.path for f in manifest.files] == [""]
        return
    paths = [f.path for f in manifest.files] + list(manifest.directories)
    assert not any(path_fault(p) for p in paths)
    assert not any(a != b and is_inside(a, b) for a in paths for b in paths)
    assert len(set(paths)) == len(paths)


@given(replaced())
@settings(max_examples=300)
def test_any_value_in_any_place_parses_safely_or_raises_bad_manifest(data: bytes) -> None:
    with contextlib.suppress(BadManifest):
        found = parse(data, peer="p")
        assert found.to_bytes() == data
        assert_safe(found)
        assert all(len(f.chunks) == chunk_count(f.size, found.chunk_size, f.origin) for f in found.files)


def dumped(**changes: Any) -> bytes:
    base = {
        "format": "mooncake.manifest.v1",
        "kind": "directory",
        "hash": "xxh3_128",
        "chunk_size": MIB,
        "files": [],
        "directories": [],
    }
    data = {**base, **changes}
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def entry(path: str, size: int = 0, **changes: Any) -> dict[str, Any]:
    chunks = ["0" * 32] * chunk_count(int(size), MIB)
    return {"path": path, "size": size, "mode": 0o644, "chunks": chunks, **changes}


BAD_PATHS = ["../x", "a/../x", "..", ".", "./a", "/x", "/", "", "a//b", "a/", "a\0b", "x" * 256, "é" * 128, "\ud800"]


def test_the_samples_are_good_before_they_are_spoilt() -> None:
    assert parse(dumped(), peer="p").chunks == 0
    good = dumped(files=[entry("a", MIB + 1), entry("b/c")], directories=["d", "e/f"])
    assert [f.path for f in parse(good, peer="p").files] == ["a", "b/c"]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_unsafe_paths(path: str) -> None:
    with pytest.raises(BadManifest):
        parse(dumped(files=[entry(path)]), peer="p")
    with pytest.raises(BadManifest):
        parse(dumped(directories=[path]), peer="p")


@pytest.mark.parametrize(
    ("files", "directories"),
    [
        (["a", "a/b"], []),
        (["a", "a-b", "a/b"], []),
        (["a"], ["a"]),
        (["a"], ["a/b"]),
        (["a/b"], ["a"]),
        ([], ["a", "a/b"]),
        (["b", "a"], []),
        (["a", "a"], []),
        ([], ["b", "a"]),
        ([], ["a", "a"]),
    ],
)
def test_trees_that_cannot_be(files: list[str], directories: list[str]) -> None:
    with pytest.raises(BadManifest):
        parse(dumped(files=[entry(p) for p in files], directories=directories), peer="p")


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": []},
        {"kind": {}},
        {"kind": "link"},
        {"kind": "file"},
        {"kind": "file", "files": [entry("a")]},
        {"kind": "file", "files": [entry(""), entry("")]},
        {"kind": "file", "files": [entry("")], "directories": ["a"]},
        {"hash": "md5"},
        {"hash": []},
        {"format": "mooncake.manifest.v2"},
        {"format": 1},
        {"chunk_size": 0},
        {"chunk_size": MIB + 1},
        {"chunk_size": MIB // 2},
        {"chunk_size": 2 * MAX_CHUNK_SIZE},
        {"chunk_size": float(MIB)},
        {"chunk_size": True},
        {"chunk_size": str(MIB)},
        {"files": {}},
        {"files": None},
        {"files": [[]]},
        {"files": [{}]},
        {"directories": {}},
        {"directories": [1]},
        {"directories": None},
        {"more": 1},
        {"files": [entry("a", -1)]},
        {"files": [entry("a", size=1.0, chunks=["0" * 32])]},
        {"files": [entry("a", size=True, chunks=["0" * 32])]},
        {"files": [{**entry("a"), "size": MAX_OBJECT_BYTES + 1}]},
        {"files": [entry("a", mode=0o1000)]},
        {"files": [entry("a", mode=-1)]},
        {"files": [entry("a", chunks=["0" * 32])]},
        {"files": [entry("a", 1, chunks=[])]},
        {"files": [entry("a", 1, chunks="0" * 32)]},
        {"files": [entry("a", 1, chunks=["0" * 31])]},
        {"files": [entry("a", 1, chunks=["0" * 30 + "  "])]},
        {"files": [entry("a", 1, chunks=["A" * 32])]},
        {"files": [entry("a", 1, mode=0o1000)]},
        {"files": [entry("a", 1, mode=999)]},
        {"files": [entry("a", MIB + 1, chunks=["0" * 32])]},
        {"files": [entry("a", MIB, chunks=["0" * 32] * 2)]},
        {"files": [entry("a", 1, chunks=["g" * 32])]},
        {"files": [entry("a", 1, chunks=[0])]},
        {"files": [entry(1)]},  # type: ignore[arg-type]
        {"files": [entry("a", more=1)]},
        {"files": [entry("a", 2 * MIB, origin=5, chunks=["0" * 32] * 3)]},
        {"format": "mooncake.manifest.v2", "files": [entry("a", 2 * MIB)]},
        {"format": "mooncake.manifest.v3"},
        *(
            {"format": "mooncake.manifest.v2", "files": [entry("a", size, origin=origin, chunks=["0" * 32] * count)]}
            for size, origin, count in [
                (2 * MIB, 5, 2),
                (2 * MIB, 5, 4),
                (2 * MIB, 0, 2),
                (2 * MIB, -1, 3),
                (2 * MIB, True, 3),
                (2 * MIB, "5", 3),
                (2 * MIB, MIB, 2),
                (2 * MIB, MIB + 1, 3),
                (5, 5, 1),
                (0, 1, 0),
                (2 * MIB, 1 << 70, 3),
            ]
        ),
    ],
)
def test_what_is_no_manifest(changes: dict[str, Any]) -> None:
    with pytest.raises(BadManifest):
        parse(dumped(**changes), peer="p")


def test_a_file_with_an_origin() -> None:
    files = [entry("a", 2 * MIB, origin=5, chunks=["0" * 32] * 3), entry("b", MIB + 1), entry("c", 7)]
    found = parse(dumped(format="mooncake.manifest.v2", files=files), peer="p")
    places = [(c.file, c.file_offset, c.length) for c in found.all_chunks()]
    assert places == [(0, 0, 5), (0, 5, MIB), (0, MIB + 5, MIB - 5), (1, 0, MIB), (1, MIB, 1), (2, 0, 7)]
    assert list(found.lengths) == [length for _, _, length in places]
    assert [found.chunks_of(at, 1) for at in (4, 5, MIB + 4, MIB + 5, 2 * MIB - 1, 2 * MIB)] == [
        range(n, n + 1) for n in (0, 1, 1, 2, 2, 3)
    ]
    assert found.format == "mooncake.manifest.v2"


def test_a_format_of_later_versions_is_named() -> None:
    with pytest.raises(BadManifest, match=r"its format is neither mooncake.manifest.v1 nor mooncake.manifest.v2"):
        parse(dumped(format="mooncake.manifest.v3"), peer="p")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"a":1' + b"0" * 5000 + b"}",
        dumped() + b"\n",
        b" " + dumped(),
        dumped().replace(b"[]", b"[ ]"),
        dumped().decode().encode("utf-16"),
        dumped().replace(b'"kind"', b'"kind":"file","kind"'),
        dumped(files=[entry("a", 1)]).replace(b'"a"', b'"\\u0061"'),
        dumped(files=[entry("a", 1)]).replace(b'"a"', b'"a\xff"'),
        dumped(files=[entry("a", 1)]).replace(b'"a"', b'"a\x1f"'),
        dumped(files=[entry("a", 1)]).replace(b'"size":1', b'"size":01'),
        dumped(files=[entry("a", 1)]).replace(b'"mode":420', b'"mode":0420'),
        dumped(files=[entry("a", 1), entry("b", 1)]).replace(b"},{", b"}{"),
    ],
    ids=range(17),
)
def test_bytes_that_are_not_canonical(data: bytes) -> None:
    with pytest.raises(BadManifest):
        parse(data, peer="p")


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dumped(files=[entry("a"), entry("b")])
    monkeypatch.setattr(module, "MAX_FILES", 1)
    with pytest.raises(BadManifest, match="allowed length"):
        parse(data, peer="p")
    monkeypatch.setattr(module, "MAX_FILES", 2)
    monkeypatch.setattr(module, "MAX_MANIFEST_BYTES", len(data) - 1)
    with pytest.raises(BadManifest, match="longer than"):
        parse(data, peer="p")


def test_the_sum_of_sizes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OBJECT_BYTES", 3)
    assert parse(dumped(files=[entry("a", 2), entry("b", 1)]), peer="p").size == 3
    with pytest.raises(BadManifest, match="larger than"):
        parse(dumped(files=[entry("a", 2), entry("b", 2)]), peer="p")


def test_the_sender_of_a_bad_manifest_is_named() -> None:
    with pytest.raises(BadManifest) as caught:
        parse(b"", peer="10.0.0.7:7300")
    assert caught.value.fields["peer"] == "10.0.0.7:7300"
