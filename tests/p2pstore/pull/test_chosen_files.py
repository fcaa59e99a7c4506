"""What a get of a part is to write, and from where."""

from __future__ import annotations

from p2pstore.objects.chosen import Choice, parse_range
from p2pstore.pull.chosen_files import chosen_files
from tests.p2pstore.samples import content, manifest_of

FILES = {"a": content(100), "b/c": content(64, 1), "b/d": b"", "e": content(33, 2)}
MANIFEST = manifest_of(FILES, 32)


def made(choice: Choice) -> dict[str, bytes]:
    """The files, made of the object's bytes."""
    whole = b"".join(FILES[path] for path in sorted(FILES))
    found = chosen_files(MANIFEST, choice, "n")
    columns = found.shape.columns
    areas = [bytearray(size) for size in columns.sizes]
    for piece in found.pieces:
        areas[piece.area][piece.to : piece.to + piece.row] = whole[piece.source : piece.end]
    return dict(zip(columns.paths, map(bytes, areas), strict=True))


def test_some_files() -> None:
    assert made(Choice(include=("b/", "e"))) == {path: FILES[path] for path in ("b/c", "b/d", "e")}
    assert made(Choice("b")) == {"c": FILES["b/c"], "d": b""}
    assert made(Choice("e")) == {"": FILES["e"]}


def test_a_range() -> None:
    assert made(Choice("a", range=parse_range("30-69"))) == {"": FILES["a"][30:70]}
    assert made(Choice("a", range=parse_range("-5"))) == {"": FILES["a"][-5:]}


def test_who_is_who() -> None:
    choices = [
        Choice("e"),
        Choice("a"),
        Choice("b"),
        Choice(include=("b/",)),
        Choice("a", range=parse_range("0-9")),
        Choice("a", range=parse_range("1-10")),
    ]
    digests = {chosen_files(MANIFEST, choice, "n").shape.digest for choice in choices}
    assert len(digests) == len(choices)
    again = chosen_files(MANIFEST, Choice("e"), "n").shape.digest
    assert again in digests


def test_hashes_of_what_is_whole() -> None:
    shape = chosen_files(MANIFEST, Choice("b"), "n").shape
    assert [entry.chunks for entry in shape.files] == [MANIFEST.files[1].chunks, ()]
    part = chosen_files(MANIFEST, Choice("a", range=parse_range("0-9")), "n").shape
    assert part.files[0].chunks == ()
