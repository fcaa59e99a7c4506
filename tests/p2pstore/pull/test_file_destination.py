"""Nothing but the whole object ever stands under the final name, and nothing that was verified is lost."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from engine.files.durable import FEW_FILES
from p2pstore.errors import (
    DestinationBusy,
    DestinationExists,
    Interrupted,
)
from p2pstore.holding.same_content import same_content
from p2pstore.objects import file_system as files_module
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.steps import Steps
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.tuning import Place
from tests.p2pstore.pull.destinations import (
    CHUNK,
    CONTENT,
    EACH,
    EMPTY,
    FILE,
    FILES,
    TREE,
    feed,
    fill,
    leftovers,
    path,
    resumed,
    small_chunks,
    whole,
)
from tests.p2pstore.samples import content, manifest_of, read_tree, write_tree

__all__ = ["path", "small_chunks"]


@EACH
def test_a_whole_one(path: Path, manifest: Manifest) -> None:
    destination = FileDestination(path, manifest, "n")
    assert not os.path.lexists(path)
    fill(destination)
    assert not os.path.lexists(path)
    spans = destination.finish()
    assert read_tree(path) == CONTENT[manifest.digest]
    assert leftovers(path) == set()
    assert [s.size for s in spans] == [f.size for f in manifest.files]
    assert same_content(path, manifest) == spans
    for span, entry in zip(spans, manifest.files, strict=True):
        assert os.stat(span.path).st_mode & 0o777 == entry.mode
    destination.abort()


def test_empty_directories_and_modes(path: Path) -> None:
    destination = FileDestination(path, TREE, "n")
    fill(destination)
    destination.finish()
    assert all((path / d).is_dir() for d in EMPTY)
    assert same_content(path, TREE)


@pytest.mark.parametrize(
    ("sizes", "place"),
    [([7], Place.FILE), ([0], Place.FILES), ([], Place.FILES), ([5, 5], Place.FILES), ([5, 4], Place.FILE)],
)
def test_where_most_of_the_bytes_go(path: Path, sizes: list[int], place: Place) -> None:
    manifest = manifest_of({f"f{number}": content(size) for number, size in enumerate(sizes)}, CHUNK)
    destination = FileDestination(path, manifest, "n")
    assert destination.lands_in is place
    destination.abort()


def test_an_empty_directory(path: Path) -> None:
    manifest = manifest_of({}, CHUNK)
    destination = FileDestination(path, manifest, "n")
    assert destination.finish() == ()
    assert same_content(path, manifest) == ()
    assert leftovers(path) == set()


def test_many_files_are_synced_at_once(path: Path) -> None:
    files = {str(n): content(n) for n in range(FEW_FILES + 5)}
    manifest = manifest_of(files, CHUNK)
    CONTENT[manifest.digest] = files
    destination = FileDestination(path, manifest, "n")
    fill(destination)
    destination.finish()
    assert read_tree(path) == files


@EACH
def test_resume(path: Path, manifest: Manifest) -> None:
    first = FileDestination(path, manifest, "n")
    half = range(manifest.chunks // 2)
    if half:
        feed(first, half)
    first.abort()
    second = resumed(path, manifest)
    assert list(second.verified) == list(half)
    if manifest.chunks:
        feed(second, range(len(half), manifest.chunks))
    second.finish()
    assert read_tree(path) == CONTENT[manifest.digest]


def test_recheck_reports_progress_and_can_be_cancelled(path: Path) -> None:
    destination = FileDestination(path, FILE, "n")
    fill(destination)
    destination.abort()
    steps = Steps()
    again = FileDestination(path, FILE, "n", steps=steps)
    again.recheck(threading.Event())
    told = steps.event()
    assert told is not None
    assert (told["step"], told["unit"], told["done"], told["total"]) == ("resuming", "B", FILE.size, FILE.size)
    again.abort()
    again = FileDestination(path, FILE, "n")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        again.recheck(stop)
    again.abort()
    assert resumed(path, FILE).verified.full


def test_recheck_drops_what_was_damaged_meanwhile(path: Path) -> None:
    destination = FileDestination(path, TREE, "n")
    fill(destination)
    part = destination.part
    destination.abort()
    with open(part / "a", "r+b") as stream:
        stream.seek(CHUNK + 5)
        stream.write(b"!")
    (part / "z").unlink()
    for _ in range(2):
        again = resumed(path, TREE)
        missing = set(again.verified.missing())
        assert missing == {1, TREE.first_chunks[3]}
        again.abort()
    again = resumed(path, TREE)
    for chunk in missing:
        feed(again, range(chunk, chunk + 1))
    again.finish()
    assert read_tree(path) == FILES


def test_a_journal_with_chunks_that_there_are_not(path: Path) -> None:
    destination = FileDestination(path, FILE, "n")
    feed(destination, range(2))
    destination.journal.add(range(4, 5))
    destination.journal.add(range(10**6, 10**6 + 3))
    destination.abort()
    again = resumed(path, FILE)
    assert list(again.verified) == [0, 1]
    again.abort()


def test_another_object_begins_anew(path: Path) -> None:
    first = FileDestination(path, FILE, "n")
    fill(first)
    first.abort()
    second = resumed(path, TREE)
    assert second.verified.count == 0
    fill(second)
    second.finish()
    assert read_tree(path) == FILES


def test_wrong_bytes_are_not_kept(path: Path) -> None:
    destination = FileDestination(path, FILE, "n")
    good = whole(FILE)[: 4 * CHUNK]
    bad = bytearray(good)
    bad[3 * CHUNK - 1] ^= 1
    with pytest.raises(Mismatch) as caught:
        feed(destination, range(4), bytes(bad))
    assert caught.value.chunk == 2
    assert list(destination.verified) == [0, 1]
    destination.abort()
    again = resumed(path, FILE)
    assert list(again.verified) == [0, 1]
    feed(again, range(2, FILE.chunks))
    again.finish()
    assert read_tree(path) == CONTENT[FILE.digest]


def test_a_run_through_several_files(path: Path) -> None:
    for scratch in (1, 100, 1 << 20):
        destination = FileDestination(path.with_name(f"d{scratch}"), TREE, "n")
        feed(destination, range(TREE.chunks), scratch=scratch)
        destination.finish()
        assert read_tree(destination.path) == FILES


def test_two_at_once(path: Path) -> None:
    first = FileDestination(path, FILE, "n")
    feed(first, range(1))
    for force in (False, True):
        with pytest.raises(DestinationBusy):
            FileDestination(path, FILE, "n", force=force)
        with pytest.raises(DestinationBusy):
            FileDestination(path, TREE, "n", force=force)
    first.abort()
    assert list(resumed(path, FILE).verified) == [0]


@EACH
@pytest.mark.parametrize("kind", ["file", "directory", "empty directory", "link"])
def test_what_appeared_meanwhile_is_not_replaced(path: Path, manifest: Manifest, kind: str) -> None:
    destination = FileDestination(path, manifest, "n")
    fill(destination)
    if kind == "file":
        path.write_bytes(b"new")
    elif kind == "link":
        path.symlink_to("nowhere")
    else:
        write_tree(path, {"x": b"new"} if kind == "directory" else {})
    with pytest.raises(DestinationExists):
        destination.finish()
    destination.abort()
    files_module.remove(path)
    again = resumed(path, manifest)
    assert again.verified.full
    again.finish()
    assert read_tree(path) == CONTENT[manifest.digest]


@EACH
@pytest.mark.parametrize("kind", ["nothing", "file", "directory", "link"])
def test_force_replaces(path: Path, manifest: Manifest, kind: str) -> None:
    target = path.with_name("target")
    write_tree(target, {"kept": b"kept"})
    if kind == "file":
        path.write_bytes(b"old")
    elif kind == "directory":
        write_tree(path, {"old/old": b"old", "a": b"old"})
    elif kind == "link":
        path.symlink_to(target)
    destination = FileDestination(path, manifest, "n", force=True)
    fill(destination)
    destination.finish()
    assert read_tree(path) == CONTENT[manifest.digest]
    assert not path.is_symlink()
    assert leftovers(path) == {"target"}
    assert read_tree(target) == {"kept": b"kept"}


def test_only_verified_ranges_are_served(path: Path) -> None:
    destination = FileDestination(path, TREE, "n")
    feed(destination, range(1, 3))
    buffer = destination.partial_buffer(lambda o, n: destination.verified.has_all(TREE.chunks_of(o, n)))
    assert buffer.length == TREE.size
    assert buffer.ready(CHUNK, 2 * CHUNK)
    assert not buffer.ready(CHUNK - 1, 2)
    assert not buffer.ready(3 * CHUNK - 1, 2)
    room = bytearray(2 * CHUNK)
    buffer.read_into(CHUNK, memoryview(room))
    assert room == whole(TREE)[CHUNK : 3 * CHUNK]
    buffer.close()
    destination.abort()
