"""What is registered is what is there: every kind of file taken or refused, and every change noticed."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.files.stamps import FileStamp
from engine.files.system import system
from engine.memory.file_spans import FileSpan
from p2pstore.errors import BadSource, Interrupted, PathNotFound, SourceChanged, StorageError, UsageError
from p2pstore.objects import source as module
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.manifest_reader import parse
from p2pstore.objects.selection import Selection
from p2pstore.objects.source import SourceTree, scan, stamp_fault
from p2pstore.objects.tasks import hash_range, run_tasks
from p2pstore.objects.tree_hash import hash_tree
from tests.p2pstore.samples import MIB, content, manifest_of, write_tree
from tests.p2pstore.users import NOBODY, own_directory, run_unprivileged

FILES = {
    "a file with spaces": content(2 * MIB + 5),
    "b/deeper/still/é.bin": content(MIB, 2),
    "b/empty": b"",
    "b.c": content(1),
    "\U0001f95f": content(3),
}
EMPTY = ("b/none", "no files", "z/y/x")


def manifest(root: Path, **options: object) -> Manifest:
    return hash_tree(scan(root), hash_name="xxh3_128", **options)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    write_tree(path, FILES, EMPTY)
    return path


def test_a_directory(root: Path) -> None:
    (root / "b.c").chmod(0o755)
    found = manifest(root, chunk_size=MIB)
    expected = manifest_of(FILES, MIB, EMPTY)
    assert [(f.path, f.size, f.chunks) for f in found.files] == [(f.path, f.size, f.chunks) for f in expected.files]
    assert found.directories == EMPTY
    assert {f.path: oct(f.mode) for f in found.files}["b.c"] == "0o755"
    assert parse(found.to_bytes(), peer="p") == found


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_tree(path, {"": content(MIB + 1)})
    path.chmod(0o4640)
    found = manifest(path)
    assert (found.kind, found.files[0].path, found.files[0].mode) == ("file", "", 0o640)
    assert found.files[0].chunks == manifest_of({"": content(MIB + 1)}).files[0].chunks
    assert parse(found.to_bytes(), peer="p") == found


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    found = manifest(path)
    assert (found.kind, found.size, found.chunks, len(found.files)) == ("file", 0, 0, 1)
    assert parse(found.to_bytes(), peer="p") == found


def test_an_empty_directory(tmp_path: Path) -> None:
    found = manifest(tmp_path)
    assert (found.kind, found.files, found.directories, found.size) == ("directory", (), (), 0)
    assert parse(found.to_bytes(), peer="p") == found


def test_a_thousand_files(tmp_path: Path) -> None:
    files = {f"{n % 7}/{n}": content(n % 50, n) for n in range(1000)}
    write_tree(tmp_path / "t", files)
    found = manifest(tmp_path / "t")
    assert [f.chunks for f in found.files] == [f.chunks for f in manifest_of(files).files]


def test_a_very_deep_tree(tmp_path: Path) -> None:
    depth = (4000 - len(str(tmp_path))) // 2
    deep = "/".join(["d"] * depth)
    subprocess.run(["mkdir", "-p", deep], cwd=tmp_path, check=True, timeout=30)
    try:
        assert scan(tmp_path).directories == (deep,)
    finally:  # pytest cannot remove it
        subprocess.run(["rm", "-rf", "d"], cwd=tmp_path, check=True, timeout=30)


def test_threads_and_chunk_sizes_do_not_matter_to_the_whole(root: Path) -> None:
    assert manifest(root, threads=1) == manifest(root, threads=5)
    assert manifest(root, chunk_size=2 * MIB).chunks == 5


def test_progress_counts_every_byte(root: Path) -> None:
    lock, done = threading.Lock(), []

    def add(count: int) -> None:
        with lock:
            done.append(count)

    found = manifest(root, progress=add)
    assert sum(done) == found.size == sum(map(len, FILES.values()))


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "none" / "x", tmp_path / "file" / "x"):
        with pytest.raises(PathNotFound):
            scan(path)
    with pytest.raises(StorageError):
        scan(tmp_path / "nul\0")
    with pytest.raises(StorageError):
        scan(tmp_path / ("x" * 300))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff\xfe", "wb"):
        pass
    with pytest.raises(BadSource, match="UTF-8"):
        scan(tmp_path)


def test_a_root_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    path.write_bytes(b"x")
    assert manifest(path).size == 1


@pytest.mark.parametrize("kind", ["inside", "outside", "of a link"])
def test_links_to_files_are_followed(root: Path, tmp_path: Path, kind: str) -> None:
    """As 'hf download' leaves them: snapshots/REV/NAME leads to ../../blobs/DIGEST."""
    target = root / "b.c" if kind == "inside" else tmp_path / "blob"
    if kind != "inside":
        target.write_bytes(content(1))
        target.chmod(0o640)
    link = root / "b" / "link"
    link.symlink_to(os.path.relpath(target, link.parent))
    if kind == "of a link":
        link.rename(tmp_path / "link")
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("blob")
        link.symlink_to(tmp_path / "link")
    tree = scan(root)
    found = {entry.path: entry for entry in manifest(root).files}
    assert found["b/link"].chunks == found["b.c"].chunks
    assert oct(found["b/link"].mode) == oct(target.stat().st_mode & 0o777)
    assert tree.foreign == (() if kind == "inside" else ("b/link",))
    span = tree.files[tree.paths.index("b/link")]
    assert (span.path, span.stamp) == (str(link), FileStamp.of(target.stat()))
    assert stamp_fault(span) == ""
    target.write_bytes(b"other")
    assert "size" in stamp_fault(span)


def test_a_link_that_leads_elsewhere_by_now_has_changed(root: Path, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"same")
        os.utime(tmp_path / name, ns=(1, 1))
    link = root / "link"
    link.symlink_to(tmp_path / "a")
    tree = scan(root)
    link.unlink()
    link.symlink_to(tmp_path / "b")
    assert stamp_fault(tree.files[tree.paths.index("link")]) == "another file took its place"
    with pytest.raises(SourceChanged):
        hash_tree(tree, hash_name="xxh3_128")


@pytest.mark.parametrize("name", ["b", "b.c"])
def test_a_link_as_path_is_where_it_leads(root: Path, tmp_path: Path, name: str) -> None:
    """What it leads to tomorrow is another version, and no reason to withdraw this one."""
    latest = tmp_path / "latest"
    latest.symlink_to(root / name)
    assert scan(latest) == scan(root / name)
    assert scan(latest).root == root / name


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere", "it is a link to nowhere, which does not exist"),
        ("link", "it is a link that leads in a circle"),
        ("../b.c/x", "it is a link to ../b.c/x, which does not exist"),
        (".", "it is a link to a directory"),
        ("/dev/null", "it is a device"),
    ],
)
def test_links_that_lead_to_no_file_are_refused(root: Path, target: str, words: str) -> None:
    link = root / "b" / "link"
    link.symlink_to(target)
    with pytest.raises(BadSource, match=re.escape(words)) as caught:
        scan(root)
    assert str(link) in str(caught.value)
    assert caught.value.hint == "leave it out with --exclude /b/link"
    scan(root, Selection(exclude=["/b/link"]))
    if target != ".":
        with pytest.raises(BadSource, match=re.escape(words)):
            scan(link)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
def test_nobody_publishes_with_the_rights_of_another(unprivileged: Path) -> None:
    """A link that another user left in a directory of theirs, to a file that they may not read themselves."""
    (unprivileged / "tree").mkdir()
    secret = unprivileged / "secret"
    secret.write_bytes(b"ours")
    link = unprivileged / "tree" / "link"
    link.symlink_to(secret)
    os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(BadSource, match="another user's link to a file that is not theirs"):
        scan(link.parent)
    os.chown(secret, NOBODY, NOBODY)
    assert scan(link.parent).foreign == ("link",)


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_special_files_are_refused(root: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's path may not be long
    if kind == "fifo":
        os.mkfifo("special")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("special")
    what = {"fifo": "named pipe", "socket": "socket"}[kind]
    for path in (root, root / "special"):
        with pytest.raises(BadSource, match=f"it is a {what}, neither a file nor a directory") as caught:
            scan(path)
        assert ("--exclude /special" in caught.value.hint) == (path == root)
    scan(root, Selection(exclude=["special"]))


def test_devices_are_refused() -> None:
    with pytest.raises(BadSource):
        scan(Path("/dev/null"))


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    with own_directory() as path:
        yield path


@pytest.mark.parametrize(
    "spoil",
    ["(root / 'b.c').chmod(0)", "(root / 'b').chmod(0)", "(root / 'b').chmod(0o400)", "(root / 'b').chmod(0o100)"],
)
def test_what_may_not_be_read(unprivileged: Path, spoil: str) -> None:
    code = f"""
root = Path(sys.argv[1]) / "tree"
write_tree(root, {{"a": b"a", "b/c": b"c", "b.c": b"x"}})
{spoil}
try:
    scan(root)
except MooncakeError as error:
    print(type(error).__name__, error.fields["detail"], error.fields["path"])
"""
    kind, words = run_unprivileged(code, unprivileged).split(" ", 1)
    assert kind == "StorageError"
    assert words.startswith("permission denied " + str(unprivileged / "tree"))


def test_what_is_left_out_need_not_be_readable(unprivileged: Path) -> None:
    """The root of a file system of its own, registered by a user: its lost+found is root's."""
    code = """
root = Path(sys.argv[1]) / "tree"
write_tree(root, {"a": b"a", "lost+found/x": b"c", "private/x": b""})
(root / "lost+found").chmod(0)
(root / "private").chmod(0)
try:
    scan(root)
except MooncakeError as error:
    print(error.exit_code, error.hint)
tree = scan(root, Selection(exclude=["private"]))
print(tree.paths, tree.left_out)
"""
    found = run_unprivileged(code, unprivileged).splitlines()
    assert found[0] == (
        "8 mend the permissions, then run the same command again; or leave it out with --exclude /private"
    )
    assert found[1] == "('a',) ('lost+found',)"


def test_a_file_that_may_not_be_read(unprivileged: Path) -> None:
    code = """
path = Path(sys.argv[1]) / "file"
path.write_bytes(b"x")
path.chmod(0o200)
try:
    scan(path)
except MooncakeError as error:
    print(error.exit_code, error)
"""
    assert run_unprivileged(code, unprivileged).startswith("8 ")


def test_too_many_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 4)
    with pytest.raises(BadSource, match="more than 4"):
        scan(root)


def test_too_many_empty_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "t", {}, tuple(map(str, range(5))))
    monkeypatch.setattr(module, "MAX_FILES", 4)
    with pytest.raises(BadSource, match="more than 4"):
        scan(tmp_path / "t")


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "t"
    write_tree(path, {"": b"12345"} if kind == "file" else {"a": b"123", "b": b"45"})
    monkeypatch.setattr(module, "MAX_OBJECT_BYTES", 4)
    with pytest.raises(BadSource, match="larger than"):
        scan(path)


def test_a_file_removed_while_it_is_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.scandir

    def and_then_remove(path: str) -> Iterator[os.DirEntry[str]]:
        found = list(whole(path))
        if path == str(root):
            (root / "b.c").unlink()
        return iter(found)

    monkeypatch.setattr(os, "scandir", and_then_remove)
    with pytest.raises(SourceChanged):
        scan(root)


# Between the scan and the end of hashing.


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def grow(path: Path) -> None:
    with open(path, "ab") as stream:
        stream.write(b"x")


def replace_same(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(other, path)


def to_link(path: Path) -> None:
    replace_same(path)
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: list[Callable[[Path], None]] = [
    touch, grow, replace_same, to_link, to_directory, Path.unlink, lambda path: os.truncate(path, 1),
]  # fmt: skip
NAMES = ["touched", "grown", "replaced", "link", "directory", "removed", "truncated"]


@pytest.mark.parametrize("name", ["a file with spaces", "b/empty"])
@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_changed_before_hashing(root: Path, change: Callable[[Path], None], name: str) -> None:
    tree = scan(root)
    change(root / name)
    with pytest.raises(SourceChanged) as caught:
        hash_tree(tree, hash_name="xxh3_128")
    assert str(root / name) in str(caught.value)


def test_a_fifo_in_its_place_is_not_waited_for(root: Path) -> None:
    tree = scan(root)
    to_fifo(root / "b.c")
    with pytest.raises(SourceChanged):
        hash_tree(tree, hash_name="xxh3_128")


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_changed_while_hashing(root: Path, change: Callable[[Path], None]) -> None:
    """After its first chunk was read, and before its last."""
    tree = scan(root)
    changed = threading.Event()

    def meanwhile(count: int) -> None:
        if count == MIB and not changed.is_set():
            changed.set()
            change(root / "a file with spaces")

    with pytest.raises(SourceChanged):
        hash_tree(tree, hash_name="xxh3_128", chunk_size=MIB, threads=1, progress=meanwhile)
    assert changed.is_set()


def test_cancelling(root: Path) -> None:
    stop = threading.Event()
    with pytest.raises(Interrupted):
        hash_tree(scan(root), hash_name="xxh3_128", progress=lambda _: stop.set(), cancelled=stop, threads=1)
    with pytest.raises(Interrupted):
        hash_tree(scan(root), hash_name="xxh3_128", cancelled=stop)


def test_a_fault_is_not_a_cancel(root: Path) -> None:
    """The caller's event is the caller's: a get that compares, and finds a difference, goes on."""
    tree = scan(root)
    (root / "b.c").unlink()
    stop = threading.Event()
    with pytest.raises(SourceChanged):
        hash_tree(tree, hash_name="xxh3_128", cancelled=stop)
    assert not stop.is_set()


def test_bad_options(root: Path) -> None:
    tree = scan(root)
    with pytest.raises(UsageError):
        hash_tree(tree, hash_name="md5")
    with pytest.raises(UsageError):
        hash_tree(tree, hash_name="xxh3_128", chunk_size=MIB + 1)


def test_hash_range_says_where_the_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    got: list[bytes] = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        room = memoryview(bytearray(4))
        hash_range(descriptor, 1, 9, lambda view: got.append(bytes(view)), room, str(path))
        assert got == [b"1234", b"5678", b"9"]
        with pytest.raises(SourceChanged, match="shorter"):
            hash_range(descriptor, 1, 10, lambda _: None, room, str(path))
    finally:
        os.close(descriptor)
    with pytest.raises(StorageError):
        hash_range(descriptor, 0, 1, lambda _: None, room, str(path))


def test_tasks_are_shared_out_and_each_run_once() -> None:
    lock, ran = threading.Lock(), []

    def run(a: int, b: int, c: int) -> None:
        with lock:
            ran.append((a, b, c))

    tasks = [(n, n + 1, n + 2) for n in range(100)]
    run_tasks(iter(tasks), run, 4, threading.Event())
    assert sorted(ran) == tasks


def test_the_first_fault_of_a_task_ends_the_others() -> None:
    ran = []

    def run(number: int, _: int, __: int) -> None:
        ran.append(number)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        run_tasks(((n, 0, 0) for n in range(10**9)), run, 1, threading.Event())
    assert ran == [0, 1, 2, 3]


def test_stamp_fault(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"123")
    span = FileSpan(str(path), 3, FileStamp.of(path.stat()))
    assert stamp_fault(span) == ""
    touch(path)
    assert stamp_fault(span) == "it was written to"
    grow(path)
    assert stamp_fault(span) == "its size went from 3 to 4 bytes"
    path.write_bytes(b"abc")
    replace_same(path)
    assert stamp_fault(span) == "another file took its place"
    path.unlink()
    assert stamp_fault(span) == "no such file or directory"
    with pytest.raises(UsageError):
        stamp_fault(FileSpan(str(path), 3))


def test_a_tree_knows_its_size(root: Path) -> None:
    tree: SourceTree = scan(root)
    assert tree.size == sum(map(len, FILES.values()))


def test_reading_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert module.reading_fault(str(path), 2) == ""

    def fails(number: int) -> None:
        def preadv(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(system, "preadv", preadv)

    fails(errno.EIO)
    assert module.reading_fault(str(path), 2) == "it cannot be read: input/output error"
    fails(errno.ENOMEM)
    assert module.reading_fault(str(path), 2) == "", "which says nothing of the file"
    path.unlink()
    assert "no such file" in module.reading_fault(str(path), 2)
