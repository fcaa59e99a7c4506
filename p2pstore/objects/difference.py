"""How two objects differ: in their bytes, or in what their files may be used for. Pure."""

from __future__ import annotations

from p2pstore.objects.manifest import Manifest


def same_bytes(one: Manifest, other: Manifest) -> bool:
    """Whether both have the same files with the same bytes, whatever the files' permissions."""
    ours, theirs = one.columns, other.columns
    return (
        (one.kind, one.hash, one.chunk_size, one.directories)
        == (other.kind, other.hash, other.chunk_size, other.directories)
        and tuple(ours.paths) == tuple(theirs.paths)
        and ours.sizes == theirs.sizes
        and ours.origins == theirs.origins
        and ours.digests == theirs.digests
    )


def cut_otherwise(one: Manifest, other: Manifest) -> bool:
    """Whether they have files of the same names and sizes, which are cut into chunks at other places.

    So it is with safetensors files that an earlier version registered: it cut each from its beginning.
    """
    ours, theirs = one.columns, other.columns
    return (
        ours.origins != theirs.origins
        and (one.kind, one.hash, one.chunk_size, one.directories)
        == (other.kind, other.hash, other.chunk_size, other.directories)
        and tuple(ours.paths) == tuple(theirs.paths)
        and ours.sizes == theirs.sizes
    )


def difference(new: Manifest, old: Manifest) -> str:
    """How a new object differs from an old one, in a few words; empty where nothing can be said."""
    if (new.hash, new.chunk_size) != (old.hash, old.chunk_size) or _cut_apart(new, old):
        return "they are hashed in another way, so that their chunks cannot be compared"
    known = {path: number for number, path in enumerate(old.columns.paths)}
    files = chunks = 0
    for number, path in enumerate(new.columns.paths):
        before = known.pop(path, None)
        wrong = _chunks(new, number, old, before)
        files += bool(wrong) or before is None or new.columns.sizes[number] != old.columns.sizes[before]
        chunks += wrong
    parts = [f"{files} of {len(new.columns)} files", f"{chunks} of {new.chunks} chunks"]
    text = " and ".join(parts) + " differ"
    return text + (f", and {len(known)} files of before are not there" if known else "")


def _cut_apart(new: Manifest, old: Manifest) -> bool:
    """Whether chunks of a file that both have begin at other places, though it is as long as it was."""
    ours, theirs = new.columns, old.columns
    if not (ours.origins or theirs.origins):
        return False
    known = {path: number for number, path in enumerate(theirs.paths)}
    return any(
        before is not None
        and ours.sizes[number] == theirs.sizes[before]
        and ours.origins.get(number, 0) != theirs.origins.get(before, 0)
        for number, before in enumerate(map(known.get, ours.paths))
    )


def _chunks(new: Manifest, number: int, old: Manifest, before: int | None) -> int:
    """How many chunks of a file are not what they were in its place."""
    first, last = new.first_chunks[number], new.first_chunks[number + 1]
    if before is None:
        return last - first
    start, stop = old.first_chunks[before], old.first_chunks[before + 1]
    width = new.columns.digest_bytes
    ours = new.columns.digests[first * width : last * width]
    theirs = old.columns.digests[start * width : stop * width]
    return sum(ours[at : at + width] != theirs[at : at + width] for at in range(0, len(ours), width))
