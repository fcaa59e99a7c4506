"""Where a get cannot write, for want of room or leave, it says so, begins nothing and lets go of what it locked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.errors import (
    Interrupted,
    PathNotFound,
    StorageError,
    UsageError,
)
from p2pstore.objects.manifest import Manifest
from p2pstore.pull import file_destination as module
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.part_files import PartFiles
from tests.p2pstore.pull.destinations import (
    CHUNK,
    CONTENT,
    EACH,
    FILE,
    feed,
    fill,
    given_up,
    leftovers,
    path,
    resumed,
    small_chunks,
)
from tests.p2pstore.samples import KIB, MIB, content, manifest_of, read_tree
from tests.p2pstore.users import own_directory, run_unprivileged

__all__ = ["path", "small_chunks"]


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
