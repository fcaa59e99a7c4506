"""Nothing but the whole object ever stands under the final name, and nothing that was verified is lost."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.files.durable import FEW_FILES
from p2pstore.errors import (
    DestinationBusy,
    DestinationExists,
    ForeignFile,
    Interrupted,
    PartChanged,
    PathNotFound,
    StorageError,
    UsageError,
)
from p2pstore.holding.same_content import same_content
from p2pstore.objects import file_system as files_module
from p2pstore.objects import manifest as manifest_module
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.steps import Steps
from p2pstore.pull import file_destination as module
from p2pstore.pull import file_sink
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.part_files import PartFiles
from p2pstore.pull.workplace import work_name
from tests.p2pstore.samples import KIB, MIB, content, manifest_of, read_tree, write_tree
from tests.p2pstore.users import own_directory, run_unprivileged

CHUNK = 4 * KIB
FILES = {"a": content(3 * CHUNK + 1), "b/c d/é": content(CHUNK, 2), "b/empty": b"", "z": content(7, 3)}
EMPTY = ("none", "b/x/y")
TREE = manifest_of(FILES, CHUNK, tuple(sorted(EMPTY)))
FILE = manifest_of({"": content(5 * CHUNK + 9, 4)}, CHUNK)
NOTHING = manifest_of({"": b""}, CHUNK)
CONTENT = {TREE.digest: FILES, FILE.digest: {"": content(5 * CHUNK + 9, 4)}, NOTHING.digest: {"": b""}}
EACH = pytest.mark.parametrize("manifest", [TREE, FILE, NOTHING], ids=["directory", "file", "empty file"])


def whole(manifest: Manifest) -> bytes:
    content = CONTENT[manifest.digest]
    return b"".join(content[path] for path in sorted(content))


def feed(destination: FileDestination, run: range, data: bytes | None = None, scratch: int = 1000) -> None:
    """Write a run as a pull does: through a sink, in pieces that fit no chunk."""
    manifest = destination.manifest
    first, last = manifest.chunk(run[0]), manifest.chunk(run[-1])
    data = whole(manifest)[first.offset : last.offset + last.length] if data is None else data
    sink = destination.sink(run, memoryview(bytearray(scratch)))
    done = 0
    try:
        while done < len(data):
            view = sink.buffer(len(data) - done)
            count = min(len(view), 777, len(data) - done)
            view[:count] = data[done : done + count]
            sink.filled(count)
            done += count
    finally:
        sink.close()
        kept = run[: sink.kept]
        destination.verified.update(kept)
        destination.keep(kept)


@contextlib.contextmanager
def given_up(destination: FileDestination) -> Iterator[FileDestination]:
    """Abort it in the end."""
    try:
        yield destination
    finally:
        destination.abort()


def fill(destination: FileDestination) -> None:
    if destination.manifest.chunks:
        feed(destination, range(destination.manifest.chunks))


def resumed(path: Path, manifest: Manifest) -> FileDestination:
    made = FileDestination(path, manifest, "n")
    made.recheck(threading.Event())
    return made


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "MIN_CHUNK_SIZE", CHUNK)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dest"


def leftovers(path: Path) -> set[str]:
    return {p.name for p in path.parent.iterdir()} - {path.name}


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


@pytest.mark.parametrize("stray", ["stray", "sub/stray", "dir/"])
def test_what_somebody_puts_into_the_partial_form_gets_under_no_final_name(path: Path, stray: str) -> None:
    manifest = manifest_of({"a": b"1", "sub/b": b"2"}, 1 << 20)
    with given_up(FileDestination(path, manifest, "n")) as destination:
        for number in range(manifest.chunks):
            feed(destination, range(number, number + 1), [b"1", b"2"][number])
            destination.verified.add(number)
        foreign = destination.part / stray
        if stray.endswith("/"):
            foreign.mkdir()
        else:
            foreign.write_bytes(b"mine")
        with pytest.raises(ForeignFile, match=str(foreign)):
            destination.finish()
        assert not path.exists()
    with pytest.raises(ForeignFile):
        FileDestination(path, manifest, "n")
    (foreign.rmdir if stray.endswith("/") else foreign.unlink)()
    with given_up(FileDestination(path, manifest, "n")) as destination:
        destination.recheck(threading.Event())
        destination.finish()
    assert read_tree(path) == {"a": b"1", "sub/b": b"2"}


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


# What stands in the way


@EACH
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["dest.part", work_name("dest")])
def test_what_others_call_like_a_partial_form_is_spared(
    path: Path, manifest: Manifest, kind: str, force: bool, name: str
) -> None:
    stranger = path.with_name(name)
    if kind == "file":
        stranger.write_bytes(b"somebody's")
    elif kind == "directory":
        write_tree(stranger, {"part": b"somebody's", "x": b"somebody's"})
    else:
        stranger.symlink_to("somewhere")
    destination = FileDestination(path, manifest, "n", force=force)
    fill(destination)
    destination.finish()
    assert read_tree(path) == CONTENT[manifest.digest]
    assert leftovers(path) == {name}
    if kind == "directory":
        assert read_tree(stranger) == {"part": b"somebody's", "x": b"somebody's"}
    else:
        assert os.readlink(stranger) == "somewhere" if kind == "link" else stranger.read_bytes() == b"somebody's"


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


def test_links_inside_the_partial_form_are_not_followed(path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_tree(outside, {"é": b"precious", "z": b"precious"})
    links = (("b/c d", outside, ForeignFile), ("z", outside / "z", StorageError), ("none", outside, ForeignFile))
    for name, target, refused in links:
        destination = FileDestination(path, TREE, "n")
        destination.abort()
        files_module.remove(destination.part / name)
        (destination.part / name).symlink_to(target)
        with pytest.raises(refused):
            FileDestination(path, TREE, "n")
        (destination.part / name).unlink()
    assert read_tree(outside) == {"é": b"precious", "z": b"precious"}
    assert all((outside / name).stat().st_mode & 0o777 == 0o644 for name in ("é", "z"))


def test_a_directory_that_was_moved_and_linked_to_gets_under_no_final_name(path: Path) -> None:
    """Its files are those that were written, and lie elsewhere."""
    with given_up(FileDestination(path, TREE, "n")) as destination:
        fill(destination)
        moved = path.with_name("moved")
        (destination.part / "b").rename(moved)
        (destination.part / "b").symlink_to(moved)
        with pytest.raises(ForeignFile, match=str(destination.part / "b")):
            destination.finish()
    assert not path.exists()


@EACH
def test_a_link_in_the_place_of_the_partial_form_is_not_followed(path: Path, manifest: Manifest) -> None:
    outside = path.with_name("outside")
    if manifest.kind == "directory":
        outside.mkdir()
    else:
        outside.write_bytes(b"precious")
    destination = FileDestination(path, manifest, "n")
    destination.abort()
    files_module.remove(destination.part)
    destination.part.symlink_to(outside)
    with pytest.raises(StorageError):
        FileDestination(path, manifest, "n")
    assert outside.is_dir() or outside.read_bytes() == b"precious"
    assert outside.is_file() or not list(outside.iterdir())


def test_no_such_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for parent, kind in ((tmp_path / "none", PathNotFound), (tmp_path / "file", StorageError)):
        with pytest.raises(kind) as caught:
            FileDestination(parent / "x", FILE, "n")
        assert caught.value.fields["path"] == parent


def test_impossible_destinations(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        FileDestination(Path("/"), FILE, "n", force=True)
    with pytest.raises(StorageError):
        FileDestination(tmp_path / ("x" * 256), FILE, "n")
    with pytest.raises(StorageError):
        FileDestination(tmp_path / ("x" * 300) / "y", FILE, "n")
    assert list(tmp_path.iterdir()) == []


@EACH
@pytest.mark.parametrize("last", ["x" * 255, "é" * 127, "." + "x" * 254, "x.part"])
def test_names_up_to_the_file_systems_limit(tmp_path: Path, manifest: Manifest, last: str) -> None:
    with given_up(FileDestination(tmp_path / last, manifest, "n")) as destination:
        half = range(manifest.chunks // 2)
        if half:
            feed(destination, half)
    for force in (False, True):  # at first it resumes
        with given_up(FileDestination(tmp_path / last, manifest, "n", force=force)) as destination:
            fill(destination)
            destination.finish()
        assert read_tree(tmp_path / last) == CONTENT[manifest.digest]
        assert leftovers(tmp_path / last) == set()


# Disks and permissions


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=100", "tmpfs", path],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=30)


def test_what_does_not_fit_is_refused_at_once(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * KIB) as disk:
        manifest = manifest_of({"": content(MIB)}, CHUNK)
        with pytest.raises(StorageError, match="no space left: 1048576 bytes are needed"):
            FileDestination(disk / "dest", manifest, "n")
        with pytest.raises(StorageError, match="no space left"):
            FileDestination(disk / "dest", manifest, "n")


def test_files_in_memory_are_refused_when_the_limit_of_memory_leaves_no_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "memory_for", lambda directory: FILE.size - 1)
    with pytest.raises(StorageError, match=f"{FILE.size} bytes are needed, {FILE.size - 1} are left") as caught:
        FileDestination(path, FILE, "n")
    assert "memory limit" in caught.value.hint
    monkeypatch.setattr(module, "memory_for", lambda directory: FILE.size)
    with given_up(FileDestination(path, FILE, "n")) as destination:
        feed(destination, range(2))
    monkeypatch.setattr(module, "memory_for", lambda directory: FILE.size - 2 * CHUNK)  # what is there needs none
    resumed(path, FILE).abort()


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * KIB) as disk:
        destination = FileDestination(disk / "dest", FILE, "n")
        feed(destination, range(2))
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "other").write_bytes(bytes(free))
        with pytest.raises(StorageError, match="no space left on device"):
            feed(destination, range(2, FILE.chunks))
        destination.abort()
        (disk / "other").unlink()
        again = resumed(disk / "dest", FILE)
        assert list(again.verified) == [0, 1]
        feed(again, range(2, FILE.chunks))
        again.finish()
        assert read_tree(disk / "dest") == CONTENT[FILE.digest]


def test_a_disk_that_is_full_before_the_journal(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * KIB) as disk:
        (disk / "other").write_bytes(bytes(64 * KIB))
        for _ in range(2):  # the second finds no lock that the first forgot
            with pytest.raises(StorageError, match="no space left"):
                FileDestination(disk / "dest", FILE, "n")
        (disk / "other").unlink()
        destination = FileDestination(disk / "dest", FILE, "n")
        fill(destination)
        destination.finish()


def test_no_inodes_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MIB) as disk:
        files = {str(n): b"x" for n in range(200)}
        with pytest.raises(StorageError, match="no space left on device"):
            FileDestination(disk / "dest", manifest_of(files, CHUNK), "n")


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    with own_directory() as made:
        yield made


def test_a_directory_that_may_not_be_written(unprivileged: Path) -> None:
    code = """
root = Path(sys.argv[1]) / "locked"
root.mkdir()
root.chmod(0o500)
try:
    FileDestination(root / "dest", manifest_of({"": b"x"}), "n")
except MooncakeError as error:
    print(error.exit_code, error.fields["detail"])
root.chmod(0)
try:
    FileDestination(root / "dest" / "x", manifest_of({"": b"x"}), "n")
except MooncakeError as error:
    print(error.exit_code, error.fields["detail"])
"""
    assert run_unprivileged(code, unprivileged) == "8 permission denied\n" * 2


@pytest.mark.parametrize("mode", [0o444, 0o000, 0o200, 0o044])
def test_files_that_their_owner_may_not_write_or_read(unprivileged: Path, mode: int) -> None:
    """A get of such files ends well, also when its end had to be tried twice."""
    code = f"""
from dataclasses import replace
manifest = manifest_of({{"a": b"x", "b": b"", "c": b"yz"}})
manifest = replace(manifest, files=tuple(replace(f, mode={mode}) for f in manifest.files))
path = Path(sys.argv[1]) / "dest"
destination = FileDestination(path, manifest, "n")
sink = destination.sink(range(2), memoryview(bytearray(10)))
for piece in (b"x", b"yz"):
    sink.buffer(9)[:len(piece)] = piece
    sink.filled(len(piece))
sink.close()
destination.keep(range(2))
path.touch()
try:
    destination.finish()
except MooncakeError as error:
    print(type(error).__name__)
destination.abort()
path.unlink()
again = FileDestination(path, manifest, "n")
again.recheck(threading.Event())
print(list(again.verified))
again.finish()
print([oct(p.stat().st_mode & 0o777) for p in sorted(path.iterdir())])
"""
    expected = f"DestinationExists\n[0, 1]\n{[oct(mode)] * 3}\n"
    assert run_unprivileged(code, unprivileged) == expected


def test_an_error_while_laying_out_lets_go_of_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: FileDestination) -> None:
        raise OSError(5, "Input/output error", "/somewhere")

    monkeypatch.setattr(module.FileDestination, "_lay_out", fails)
    with pytest.raises(StorageError, match="/somewhere: input/output error"):
        FileDestination(path, FILE, "n")
    monkeypatch.undo()
    FileDestination(path, FILE, "n").abort()


def test_laying_out_can_be_cancelled_and_the_next_get_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C says that the same command resumes: with many files it was refused for as long as it took to make them."""
    manifest = manifest_of({f"d{n % 3}/{n}": b"" for n in range(100)}, 1 << 20)
    cancelled = threading.Event()
    make = PartFiles.make
    made = []

    def counted(self: PartFiles, number: int, *, fresh: bool) -> None:
        made.append(number)
        if number == 10:
            cancelled.set()
        make(self, number, fresh=fresh)

    monkeypatch.setattr(PartFiles, "make", counted)
    with pytest.raises(Interrupted):
        FileDestination(path, manifest, "n", cancelled=cancelled)
    assert made == list(range(11))
    monkeypatch.undo()
    with given_up(FileDestination(path, manifest, "n")) as destination:
        destination.finish()
    assert len(read_tree(path)) == 100


# Others who write where a get does


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"?" * 100)


def overwrite_and_put_the_times_back(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, 10)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"?" * path.stat().st_size)
    other.replace(path)


def map_and_change(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[:100] = b"?" * 100


CHANGES = [overwrite, overwrite_and_put_the_times_back, cut, replace, map_and_change]


@pytest.mark.parametrize("manifest", [TREE, FILE], ids=["directory", "file"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_what_others_write_meanwhile_gets_under_no_final_name(
    path: Path, manifest: Manifest, change: Callable[[Path], None]
) -> None:
    """While the file is open and we write on, so that its times tell nothing."""
    number = 0
    with given_up(FileDestination(path, manifest, "n")) as destination:
        feed(destination, range(2))
        destination.files.borrow(number)
        change(destination.file_path(number))
        feed(destination, range(2, manifest.chunks))
        destination.files.give_back(number)
        assert destination.verified.full
        with pytest.raises(PartChanged) as caught:
            destination.finish()
        assert caught.value.fields["path"] == destination.file_path(number)
    assert not path.exists()
    with given_up(resumed(path, manifest)) as destination:
        missing = list(destination.verified.missing())
        assert 0 in missing
        for chunk in missing:
            feed(destination, range(chunk, chunk + 1))
        destination.finish()
    assert read_tree(path) == CONTENT[manifest.digest]
    assert leftovers(path) == set()


def test_what_was_cut_short_before_blocks_are_shared_gets_under_no_final_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To share the last blocks makes the file as long as it was."""

    def clone(source: int, offset: int, length: int, target: int, target_offset: int) -> bool:
        return os.pwrite(target, os.pread(source, length, offset), target_offset) == length

    monkeypatch.setattr(file_sink, "clone_range", clone)
    last = FILE.chunk(FILE.chunks - 1)
    source = path.with_name("source")
    source.write_bytes(whole(FILE))
    with given_up(FileDestination(path, FILE, "n")) as destination, source.open("rb") as there:
        destination.files.borrow(0)
        feed(destination, range(last.number))
        cut(destination.part)
        sink = destination.sink(range(last.number, FILE.chunks), memoryview(bytearray(100)))
        assert sink.clone(there.fileno(), last.offset, last.length) == last.length
        sink.close()
        destination.verified.add(last.number)
        destination.files.give_back(0)
        with pytest.raises(PartChanged):
            destination.finish()
    assert not path.exists()


@pytest.mark.parametrize("change", [Path.touch, lambda path: os.link(path, path.parent.parent / "kept")])
def test_what_is_still_right_is_hashed_again_and_no_more(path: Path, change: Callable[[Path], None]) -> None:
    with given_up(FileDestination(path, FILE, "n")) as destination:
        fill(destination)
        change(destination.part)
        destination.finish()
    assert read_tree(path) == CONTENT[FILE.digest]


@pytest.mark.parametrize("step", ["_is_right", "_clear"])
@pytest.mark.parametrize("when", ["in the end", "while it is written out"])
def test_what_others_write_while_it_is_hashed_again_gets_under_no_final_name(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """The chunk that they write to has just been found right."""
    with given_up(FileDestination(path, FILE, "n")) as destination:
        fill(destination)
        do, sync = getattr(FileDestination, step), module.sync_files

        def then_written_to(*args: Any) -> object:
            done = do(*args)
            if args[1]:  # a chunk, or files that were in doubt
                overwrite(destination.part)
                os.utime(destination.part, ns=(1, 1))
            return done

        def synced(*args: Any) -> None:
            sync(*args)
            os.utime(destination.part, ns=(2, 2))

        if when == "in the end":
            os.utime(destination.part, ns=(2, 2))
        else:
            monkeypatch.setattr(module, "sync_files", synced)
        monkeypatch.setattr(FileDestination, step, then_written_to)
        with pytest.raises(PartChanged):
            destination.finish()
    assert not path.exists()


def test_without_inode_numbers_that_stay_all_is_hashed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems in user space: a number of its own at each look."""
    counter = itertools.count(1)

    def number(_: os.stat_result) -> int:
        return next(counter)

    monkeypatch.setattr(PartFiles, "_inode", staticmethod(number))
    with given_up(FileDestination(path, TREE, "n")) as destination:
        fill(destination)
        destination.finish()
    assert read_tree(path) == FILES


def test_a_resumed_get_writes_into_no_file_that_has_another_name(path: Path) -> None:
    with given_up(FileDestination(path, FILE, "n")) as destination:
        feed(destination, range(2))
        os.link(destination.part, path.with_name("backup"))
    before = path.with_name("backup").read_bytes()
    with given_up(resumed(path, FILE)) as destination:
        fill(destination)
        destination.finish()
    assert path.with_name("backup").read_bytes() == before
    assert read_tree(path) == CONTENT[FILE.digest]


# Serving, and comparing


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
